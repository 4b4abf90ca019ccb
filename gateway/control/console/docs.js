// What this caller may call: each model with its fields, an example and a form to try it.
import { hasKey, read, signIn } from './api.js';
import { fill, h } from './dom.js';
import { tryIt } from './try.js';

const main = document.getElementById('main');

async function show() {
  let document_;
  let refused = '';
  try { document_ = await read('/-/openapi.json'); } catch (error) { refused = error.message; }
  const names = document_ ? Object.keys(document_.paths).map((path) => path.slice(1)) : [];
  const opened = decodeURIComponent(location.hash.slice(1));
  fill(main, []);
  fill(main, [
    h('div.head', {}, h('div', {}, h('h1', {}, 'The models you may call'), h('p.sub', {}, hasKey() ? `${names.length} with your key.` : `${names.length} without a key. With one there may be more.`))),
    refused ? h('p.note.bad', { role: 'alert' }, refused) : null,
    keyForm(),
    ...names.filter((name) => !opened || !names.includes(opened) || name === opened).slice(0, opened && names.includes(opened) ? 1 : 200).map((name) => about(name, document_, names.length === 1 || name === opened)),
  ].filter(Boolean));
}

function keyForm() {
  const form = h('form.card', { class: 'card bar', 'data-keep': '' }, h('label', { class: 'bar' }, 'API key ', h('input', { type: 'password', id: 'key', autocomplete: 'off' })), h('button', { type: 'submit' }, 'Use it'), h('span.soft', {}, 'It stays in this tab.'));
  form.onsubmit = (event) => { event.preventDefault(); signIn(form.querySelector('input').value); show(); };
  return form;
}

function about(name, document_, open) {
  const { post } = document_.paths[`/${name}`];
  const schema = document_.components.schemas[`${name}.instance`];
  const named = (schema.anyOf || []).find((one) => one.type === 'object');
  const example = JSON.stringify(post.requestBody.content['application/json'].example || { instances: [] });
  return h('section.card', { id: `model-${name}` }, h('h2', {}, h('a', { href: `#${encodeURIComponent(name)}` }, name)), h('p.sub', {}, post.description),
    named ? h('p', {}, h('span.soft', {}, 'Fields: '), Object.entries(named.properties).slice(0, 60).map(([field, type], index) => [index ? ', ' : '', h('code', {}, field), ` ${[].concat(type.type || 'any').filter((one) => one !== 'null')[0]}`])) : null,
    h('pre', { tabindex: 0 }, `curl ${location.origin}/${name} -H 'X-Api-Key: …' --json '${example}'`),
    open ? tryIt(name, document_) : null);
}

addEventListener('hashchange', show);
show();
