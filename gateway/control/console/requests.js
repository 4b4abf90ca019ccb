// Kept requests: bad ones always, good ones as far as they were sampled. All filters stand in the address.
import { Copy, Pill, Table, html } from './ui.js';
import { read } from './api.js';
import { SIDES, WHOSE, codeShort, count, keptShort, ms, moment, plural, status } from './format.js';
import { having, href } from './place.js';

export const every = 3000;
const LIMIT = 50;
const KINDS = { bad: 'Slow or failed', failed: 'Failed', slowest: 'Slowest first', all: 'All kept' };
const STATUSES = ['', '2xx', '4xx', '5xx', '401', '403', '404', '422', '429', '499', '500', '502', '503', '504'];
const FILTERS = ['model', 'version', 'status', 'side', 'caller', 'text', 'slower_ms'];

// Filters name what they are about; without one, the list shows what is worth a look.
function kindOf({ kind, ...query }) { return KINDS[kind] ? kind : FILTERS.some((name) => query[name]) || query.since || query.until ? 'all' : 'bad'; }

export function load({ query }) {
  const asked = new URLSearchParams({ kind: kindOf(query), limit: LIMIT });
  for (const name of FILTERS) if (query[name]) asked.set(name, query[name].trim());
  for (const name of ['before', 'skip']) if (query[name]) asked.set(name, query[name]);
  for (const name of ['since', 'until']) if (query[name]) asked.set(name, Date.parse(`${query[name]}Z`) / 1000 || 0);
  return read(`/-/requests?${asked}`);
}

export function page(place, { requests, found, next, note }, change) {
  const { query } = place;
  const set = (name) => (event) => change({ [name]: event.target.value, before: '', skip: '' });
  const field = (name, label, props) => html`<label class="field">${label}<input name=${name} value=${query[name] || ''} autocomplete="off" oninput=${set(name)} ...${props} /></label>`;
  const filtered = [...FILTERS, 'since', 'until', 'kind'].some((name) => query[name]);
  return html`
    <div class="head"><div><h1>Requests</h1><p class="sub">Each request that failed on our or a backend’s side, was slow or was asked for is kept; of the others, some each second.</p></div></div>
    <section class="card flush">
      <form class="filters" id="filters" role="search" aria-label="Filter the requests" onsubmit=${(event) => event.preventDefault()}>
        <label class="field">Show<select id="kind" value=${kindOf(query)} onchange=${set('kind')}>${Object.entries(KINDS).map(([kind, label]) => html`<option value=${kind}>${label}</option>`)}</select></label>
        <label class="field">Status<select id="status" value=${query.status || ''} onchange=${set('status')}>${[...new Set([...STATUSES, query.status || ''])].map((one) => html`<option value=${one}>${one || 'any'}</option>`)}</select></label>
        <label class="field">Whose error<select id="side" value=${query.side || ''} onchange=${set('side')}><option value="">any</option>${Object.entries(SIDES).map(([side, label]) => html`<option value=${side}>${label}</option>`)}</select></label>
        ${field('model', 'Model', { placeholder: 'any', id: 'of-model' })}
        ${field('version', 'Version', { placeholder: 'any' })}
        ${field('caller', 'Caller', { placeholder: 'name or id' })}
        ${field('text', 'Text', { type: 'search', placeholder: 'path, id, error', id: 'text' })}
        ${field('slower_ms', 'Slower than (ms)', { type: 'number', min: 0, step: 'any' })}
        ${field('since', 'From (UTC)', { type: 'datetime-local', step: 1 })}
        ${field('until', 'Until (UTC)', { type: 'datetime-local', step: 1 })}
      </form>
      <p class="bar pad"><span role="status">${plural(found, 'request')}</span>${filtered && html`<a href="#/requests">Clear the filters</a>`}<${Copy} text=${location.href} label="Copy a link to this list" /></p>
      ${note && html`<p class="pad soft">${note}</p>`}
      <${RequestTable} found=${requests} caption="Kept requests" />
      <nav class="pager" aria-label="Pages">${(query.before || query.skip) && html`<a href=${having(place, { before: '', skip: '' })}>← To the beginning</a>`}${next && html`<a href=${having(place, next)}>${kindOf(query) === 'slowest' ? 'Next' : 'Older'} →</a>`}</nav>
    </section>`;
}

export function RequestTable({ found, caption }) {
  if (!found.length) return html`<p class="pad soft">None.</p>`;
  return html`<${Table} caption=${caption} columns=${[['When (UTC)'], ['Request'], ['Status'], ['Took', 'num'], ['Backend', 'num'], ['Version'], ['Caller'], ['Why it is here']]}>
    ${found.map((one) => html`<tr key=${one.number}>
      <th scope="row" class="when"><a href=${href('request', one.request_id)}>${moment(one.at)}</a></th>
      <td class="path" data-label="Request">${one.method} ${one.path.slice(0, 80)}</td>
      <td data-label="Status"><${Pill} mood=${status(one.status)}>${one.status}<//></td>
      <td class="num" data-label="Took">${ms(one.duration_ms)}</td>
      <td class="num" data-label="Backend">${one.attempts ? ms(one.backend_ms) : '–'}</td>
      <td data-label="Version">${one.version || '–'}</td>
      <td data-label="Caller" title=${one.caller}>${one.caller_label || one.caller || '–'}</td>
      <td data-label="Why it is here" class="why">${one.error ? html`<span title=${one.error}>${WHOSE[one.side] || one.side}: ${codeShort(one.error)}</span>` : keptShort(one.kept)}${one.attempts > 1 && `, ${count(one.attempts)} attempts`}</td>
    </tr>`)}<//>`;
}
