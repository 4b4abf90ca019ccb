// Try a model: a form made from its signature, as the gateway's OpenAPI document gives it.
import { h } from './dom.js';
import { headers } from './api.js';

export function tryIt(name, openapi) {
  const operation = openapi && openapi.paths[`/${name}`] && openapi.paths[`/${name}`].post;
  if (!operation) return h('section.card', {}, h('h2', {}, 'Try it'), h('p.soft', {}, 'Your key may not call this model, or it is disabled.'));
  const schema = openapi.components.schemas[`${name}.instance`] || {};
  const named = (schema.anyOf || []).find((one) => one.type === 'object');
  const example = ((operation.requestBody.content['application/json'].example || {}).instances || [{}])[0];
  const form = h('form', { id: `try-${name}`, 'data-keep': '' });
  const body = h('textarea', { id: 'try-body', spellcheck: 'false', 'aria-label': 'Request body' });
  const result = h('div', { role: 'status', 'aria-live': 'polite' });
  const values = { ...example };
  const write = () => { body.value = JSON.stringify({ instances: [values] }, null, 2); };
  const fields = named ? Object.entries(named.properties).slice(0, 60).map(([field, type]) => input(field, type, values, write)) : [];
  write();
  form.append(
    ...(fields.length ? [h('div.fields', {}, fields)] : [h('p.soft', {}, 'This version lists no inputs, so the body is yours to write.')]),
    h('label.field', {}, 'Body as it is sent', body),
    h('p', { class: 'bar' }, h('button.main', { type: 'submit' }, 'Send'), h('span.soft', {}, 'The trace of this request is kept.')),
    result);
  form.onsubmit = async (event) => { event.preventDefault(); await send(name, body.value, form, result); };
  return h('section.card', {}, h('h2', {}, 'Try it'), form);
}

function input(field, type, values, write) {
  const kind = [].concat(type.type || 'any').find((one) => one !== 'null');
  const simple = ['number', 'integer', 'string', 'boolean'].includes(kind);
  const change = (event) => {
    const given = event.target.type === 'checkbox' ? event.target.checked : event.target.value;
    if (kind === 'number' || kind === 'integer') values[field] = given === '' ? null : Number(given);
    else if (simple) values[field] = given;
    else try { values[field] = JSON.parse(given); } catch { return; }
    write();
  };
  const attributes = kind === 'boolean' ? { type: 'checkbox', checked: Boolean(values[field]) } : kind === 'number' || kind === 'integer' ? { type: 'number', step: kind === 'integer' ? '1' : 'any', value: values[field] } : { type: 'text', value: simple ? values[field] : JSON.stringify(values[field]) };
  return h('label.field', {}, h('span', {}, field, ' ', h('small.soft', {}, kind)), h('input', { ...attributes, oninput: change }));
}

async function send(name, text, form, result) {
  const button = form.querySelector('button');
  button.disabled = true;
  const began = performance.now();
  try {
    const answer = await fetch(`/${encodeURIComponent(name)}`, { method: 'POST', body: text, headers: headers({ 'Content-Type': 'application/json', 'X-Chips-Trace': '1' }), redirect: 'error' });
    const took = performance.now() - began;
    const content = await answer.text();
    const id = answer.headers.get('X-Request-Id');
    const side = answer.headers.get('chips-error');
    result.replaceChildren(h('p', {}, h('span', { class: `pill ${answer.ok ? 'ok' : answer.status >= 500 ? 'bad' : 'warn'}` }, String(answer.status)), ` in ${took.toFixed(1)} ms`, side ? `, refused by the gateway: ${side}` : answer.ok ? '' : ', from the backend', id ? [' – ', h('a', { href: `#/request/${encodeURIComponent(id)}` }, 'where the time went')] : null), h('pre', { tabindex: 0 }, pretty(content)));
  } catch (error) {
    result.replaceChildren(h('p.bad', {}, `The gateway could not be reached: ${error.message}`));
  }
  button.disabled = false;
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2).slice(0, 20000); } catch { return text.slice(0, 20000); }
}
