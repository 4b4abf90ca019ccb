// Kept requests: bad ones always, good ones as far as they were sampled.
import { h } from './dom.js';
import { read } from './api.js';
import { clock, ms, status } from './format.js';

export const view = { kind: 'bad', model: '' };
const KINDS = { bad: 'Slow, failed or asked for', failed: 'Failed', slowest: 'Slowest', all: 'All that are kept' };

export async function load() {
  const model = view.model ? `&model=${encodeURIComponent(view.model)}` : '';
  const found = await read(`/-/requests?limit=200&kind=${view.kind}${model}`);
  return found;
}

export function requests(loaded, board, changed) {
  const names = board ? board.models.map((model) => model.name) : [];
  return [
    h('div.head', {}, h('div', {}, h('h1', {}, 'Requests'), h('p.sub', {}, 'What failed, was slow or was asked for is always kept; of the rest, some each second.'))),
    h('section.card.flush', {},
      h('div.card-bar', { class: 'bar card-bar', id: 'kinds' },
        h('label', { class: 'bar' }, h('span.soft', {}, 'Show'), h('select', { id: 'kind', onchange: (event) => { view.kind = event.target.value; changed(); } }, Object.entries(KINDS).map(([kind, label]) => h('option', { value: kind, selected: kind === view.kind }, label)))),
        h('label', { class: 'bar' }, h('span.soft', {}, 'Model'), h('input', { type: 'search', id: 'of-model', list: 'models', value: view.model, placeholder: 'any', autocomplete: 'off', onchange: (event) => { view.model = event.target.value.trim(); changed(); } })),
        h('datalist', { id: 'models' }, names.slice(0, 1000).map((name) => h('option', { value: name })))),
      loaded && loaded.note ? h('p', { class: 'pad soft' }, loaded.note) : null,
      loaded ? table(loaded.requests, 'Kept requests') : h('p', { class: 'pad soft' }, 'Loading…')),
  ];
}

export function table(found, caption, short) {
  if (!found.length) return h('p', { class: 'pad soft' }, 'None.');
  return h('div.scroll', { tabindex: 0, role: 'region', 'aria-label': caption }, h('table.stack', {}, h('caption', {}, caption),
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Request'), h('th', { scope: 'col' }, 'Status'), h('th.num', { scope: 'col' }, 'Took'), h('th.num', { scope: 'col' }, 'Backend'), h('th', { scope: 'col' }, short ? 'Version' : 'Model'), short ? null : h('th', { scope: 'col' }, 'Caller'), h('th', { scope: 'col' }, 'Why'))),
    h('tbody', {}, found.map((one) => h('tr', {},
      h('th', { scope: 'row', class: 'wide' }, h('a', { href: `#/request/${encodeURIComponent(one.request_id)}`, class: 'mono' }, clock(one.at)), ' ', h('span.soft', {}, short ? '' : `${one.method} ${one.path.slice(0, 60)}`)),
      h('td', { 'data-label': 'Status' }, h('span.pill', { class: `pill ${status(one.status)}` }, String(one.status))),
      h('td.num', { 'data-label': 'Took' }, ms(one.duration_ms)),
      h('td.num', { 'data-label': 'Backend' }, ms(one.backend_ms)),
      h('td', { 'data-label': short ? 'Version' : 'Model' }, short ? one.version : one.model ? `${one.model}@${one.version}` : '–'),
      short ? null : h('td.mono', { 'data-label': 'Caller' }, one.caller || '–'),
      h('td', { 'data-label': 'Why', class: 'why' }, one.error ? `${one.error} (${one.side})` : one.kept, one.attempts > 1 ? `, ${one.attempts} attempts` : ''))))));
}
