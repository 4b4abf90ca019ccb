// What this caller may call: each model with what it takes and answers, a call in five languages, and a form to try it.
import { Code, Component, Pill, Skip, html, render } from './ui.js';
import { hasKey, read, signIn } from './api.js';
import { examples } from './examples.js';
import { count, plural } from './format.js';
import { TryIt, typeOf } from './try.js';

const LIMIT = 50;
const ROWS = 200;
const seen = { index: null, opened: null, name: '', error: '', find: '', skip: 0, language: 'curl' };

function named() {
  const given = location.hash.replace(/^#\/?/, '');
  try { return decodeURIComponent(given); } catch { return given; }
}

async function load() {
  const name = named();
  Object.assign(seen, { name, opened: null, error: '' });
  draw();
  try {
    const [index, document_] = await Promise.all([read('/'), name ? read(`/-/openapi.json?model=${encodeURIComponent(name)}`) : null]);
    if (named() !== name) return;
    Object.assign(seen, { index, opened: document_ && document_.paths[`/${name}`] ? document_ : null });
  } catch (error) {
    if (named() !== name) return;
    Object.assign(seen, { error: error.message, index: null });
  }
  draw();
}

function draw() {
  document.title = `${seen.name || 'The models you may call'} – CHIPS`;
  render(html`<${Docs} ...${seen} />`, document.getElementById('docs'));
  document.body.dataset.state = seen.error ? 'refused' : seen.index && (!seen.name || seen.opened || !mayCall()) ? 'shown' : 'loading';
}

function mayCall() { return seen.index.models.some((one) => one.name === seen.name); }

function Docs({ index, opened, name, error, find, skip }) {
  return html`
    <${Skip} /><header class="top"><a class="brand" href="#"><img src="/-/console/icon.svg" alt="" width="22" height="22" /> CHIPS</a>
      <nav aria-label="Pages"><a href="#" aria-current=${name ? null : 'page'}>Models</a><a href="/-/openapi.json">OpenAPI</a><a href="/-/console/">Console</a></nav></header>
    <main id="main" tabindex="-1">
      ${error && html`<p class="note bad" role="alert">${error}</p>`}
      ${name ? html`<${About} name=${name} opened=${opened} index=${index} />` : html`<${List} index=${index} find=${find} skip=${skip} />`}
      <${KeyForm} />
    </main>`;
}

function List({ index, find, skip }) {
  const models = index ? index.models : [];
  const wanted = find.toLowerCase();
  const found = models.filter((one) => one.name.includes(wanted) || one.description.toLowerCase().includes(wanted));
  return html`
    <div class="head"><div><h1>The models you may call</h1>
      <p class="sub" role="status">${!index ? 'Loading…' : hasKey() ? `${plural(models.length, 'model')} with your key${index.caller && index.caller.label ? ` (${index.caller.label})` : ''}.` : `${plural(models.length, 'model')} without a key. With one there may be more.`}</p></div></div>
    ${models.length > 0 && html`<section class="card flush"><form class="filters" role="search" onsubmit=${(event) => event.preventDefault()}>
        <label class="field grow">Find<input type="search" id="find" value=${find} placeholder="name or description" autocomplete="off" oninput=${(event) => { Object.assign(seen, { find: event.target.value, skip: 0 }); draw(); }} /></label><span class="soft">${count(found.length)} of ${count(models.length)}</span></form>
      <ul class="list">${found.slice(skip, skip + LIMIT).map((one) => html`<li key=${one.name} id="model-${one.name}"><a href="#${encodeURIComponent(one.name)}">${one.name}</a><span class="soft">${one.description}</span></li>`)}</ul>
      ${found.length > LIMIT && html`<div class="pager" role="group" aria-label="Pages"><button type="button" disabled=${!skip} onclick=${() => turn(skip - LIMIT)}>← Previous</button><span class="soft">${skip + 1} to ${Math.min(skip + LIMIT, found.length)} of ${count(found.length)}</span><button type="button" disabled=${skip + LIMIT >= found.length} onclick=${() => turn(skip + LIMIT)}>Next →</button></div>`}
    </section>`}`;
}

function turn(skip) { seen.skip = Math.max(skip, 0); draw(); }

function About({ name, opened, index }) {
  if (!opened) {
    return html`<div class="head"><div><p class="sub"><a href="#">Models</a> /</p><h1>${name}</h1></div></div>
      <p class="card soft">${index ? 'There is no such model, or your key may not call it.' : 'Loading…'}</p>`;
  }
  const { post } = opened.paths[`/${name}`];
  const media = post.requestBody.content['application/json'];
  const { [`${name}.instance`]: instance, [`${name}.prediction`]: prediction } = opened.components.schemas;
  const isOurs = Boolean(instance); // others take and answer JSON of their own
  const example = media.example || (isOurs ? { instances: [] } : {});
  const takes = properties(instance || {});
  const gives = properties(prediction || {});
  const isPublic = Boolean(post.security && !post.security.length);
  const calls = examples(`${location.origin}/${name}`, example, isPublic, isOurs);
  return html`
    <div class="head"><div><p class="sub"><a href="#">Models</a> /</p><h1>${name}</h1><p class="sub">${post.description}</p></div>
      ${isPublic && html`<${Pill} mood="ok">no key needed<//>`}</div>
    <div class="columns">
      <section class="card"><h2>What it takes</h2>${isOurs ? html`<p>A <code>POST</code> with JSON: <code>instances</code> is a list, each with these fields.</p><${Fields} fields=${takes} caption="Fields of an instance" none="This version lists no inputs. Ask the model’s owner." />` : html`<p>A <code>POST</code> with JSON, as the service itself documents it.</p>`}</section>
      <section class="card"><h2>What it answers</h2>${isOurs ? html`<p>Status 200 and JSON: <code>predictions</code> has one for each instance, in their order. Also <code>model</code> and <code>version</code>.</p><${Fields} fields=${gives} caption="A prediction" none="This version does not list its outputs." />` : html`<p>What the service itself documents; the gateway passes it on.</p>`}
        <p class="soft">Every other status comes with a problem document (RFC 9457): its <code>detail</code> says what is wrong. With a header <code>chips-error</code> the gateway refused or failed; without one, the backend did.</p></section>
    </div>
    <section class="card" id="examples"><h2>Call it</h2>
      ${!isPublic && html`<p>The examples read your key from the environment: <code>export CHIPS_KEY=…</code></p>`}
      <div class="choice" role="group" aria-label="Language">${Object.keys(calls).map((language) => html`<button type="button" aria-pressed=${String(language === seen.language)} onclick=${() => { seen.language = language; draw(); }}>${language}</button>`)}</div>
      <${Code} text=${calls[seen.language]} label=${`Example in ${seen.language}`} /></section>
    <section class="card"><h2>Try it</h2><${TryIt} key=${name} name=${name} example=${example} fields=${takes} /></section>`;
}

// The fields of a schema by name; a single value that may also stand alone has its name from the signature.
function properties(schema) {
  const named_ = schema.properties ? schema : (schema.anyOf || []).find((one) => one.type === 'object');
  return (named_ && named_.properties) || {};
}

function Fields({ fields, caption, none }) {
  const rows = Object.entries(fields);
  if (!rows.length) return html`<p class="soft">${none}</p>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}><table class="plain"><caption>${caption}</caption><thead><tr><th scope="col">Field</th><th scope="col">Type</th></tr></thead>
    <tbody>${rows.slice(0, ROWS).map(([field, schema]) => html`<tr><th scope="row"><code>${field}</code></th><td>${words(schema)}</td></tr>`)}</tbody></table></div>
    ${rows.length > ROWS && html`<p class="soft">And ${count(rows.length - ROWS)} more; the OpenAPI document has all.</p>`}`;
}

function words(schema) {
  if (schema.type === 'array') return `list of ${schema.minItems === undefined ? '' : `${schema.minItems} `}${words(schema.items)}`;
  const nullable = Array.isArray(schema.type) && schema.type.includes('null');
  return `${typeOf(schema)}${nullable ? ', or null if missing' : ''}`;
}

class KeyForm extends Component {
  render() {
    return html`<form class="card bar bottom" onsubmit=${(event) => { event.preventDefault(); signIn(event.currentTarget.elements.key.value); load(); }}>
      <label class="field grow">API key<input type="password" id="key" name="key" autocomplete="off" spellcheck="false" /></label><button type="submit">Use it</button><span class="soft">It stays in this tab. Your operator makes one with <code>chips keys create</code>.</span></form>`;
  }
}

addEventListener('hashchange', () => { load(); scrollTo(0, 0); });
load();
