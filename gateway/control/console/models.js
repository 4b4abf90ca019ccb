// The first page: how the gateway does, and each model.
import { h } from './dom.js';
import { spark } from './charts.js';
import { bytes, count, ms, percent, rate } from './format.js';

const SHOWN = 50;
const view = { filter: '', sort: 'rps', shown: SHOWN };
const ORDERS = {
  name: (a, b) => a.name.localeCompare(b.name),
  rps: (a, b) => b.rps - a.rps || b.requests - a.requests || a.name.localeCompare(b.name),
  failed: (a, b) => b.failed_share - a.failed_share || b.failed - a.failed || b.rps - a.rps,
  p50: (a, b) => (b.p50_ms || 0) - (a.p50_ms || 0),
  p99: (a, b) => (b.p99_ms || 0) - (a.p99_ms || 0),
  flight: (a, b) => b.in_flight - a.in_flight || b.rps - a.rps,
};

export function tile(label, value, more, mood) {
  return h('div.tile', {}, h('dt', {}, label), h('dd', { class: mood }, value, more ? h('small', {}, more) : null));
}

export function models({ board, curves }, redraw) {
  if (!board) return [h('h1', {}, 'Models'), h('p.soft', {}, 'Waiting for the first figures…')];
  const { gateway, registry } = board;
  const wanted = view.filter.toLowerCase();
  const found = board.models.filter((model) => model.name.includes(wanted) || model.description.toLowerCase().includes(wanted));
  const shown = [...found].sort(ORDERS[view.sort]).slice(0, view.shown);
  return [
    h('div.head', {}, h('div', {}, h('h1', {}, 'Models'), h('p.sub', {}, `Figures of the last ${Math.round(board.window_s)} seconds, over ${gateway.workers} ${gateway.workers === 1 ? 'process' : 'processes'}.`))),
    h('dl.tiles', {},
      tile('Requests per second', rate(gateway.rps), `${gateway.in_flight} in flight`),
      tile('Failed', percent(gateway.failed_share), 'on our or a backend’s side', gateway.failed_share > 0.01 ? 'bad' : ''),
      tile('Latency p99', ms(gateway.p99_ms), `p50 ${ms(gateway.p50_ms)}`),
      tile('Gateway’s own share', ms(gateway.overhead_p50_ms), `p99 ${ms(gateway.overhead_p99_ms)}`),
      tile('Memory', bytes(gateway.memory_bytes)),
      tile('Registry', registry.generation === null ? 'not read' : `#${registry.generation}`, registry.held || (registry.connected ? `confirmed ${registry.age_s.toFixed(1)} s ago` : `away for ${registry.age_s.toFixed(0)} s; serving the last good state`), registry.connected && !registry.held ? '' : 'bad')),
    registry.problems.length ? h('div.note.bad', { role: 'alert' }, h('strong', {}, 'Registry documents that cannot be used: '), registry.problems.join('; ')) : null,
    h('section.card.flush', { 'aria-label': 'Models' },
      h('div.bar', { class: 'bar card-bar', id: 'filter' },
        h('label', { class: 'bar' }, h('span.soft', {}, 'Find'), h('input', { type: 'search', id: 'find', value: view.filter, placeholder: 'name or description', autocomplete: 'off', oninput: (event) => { view.filter = event.target.value; view.shown = SHOWN; redraw(); } })),
        h('span.soft', { role: 'status' }, `${found.length} of ${board.models.length}`)),
      found.length ? h('div.scroll', { tabindex: 0, role: 'region', 'aria-label': 'Table of models' }, h('table.stack', {}, h('caption', {}, 'Models with their traffic, failures and latency'),
        h('thead', {}, h('tr', {}, heading('Model', 'name', redraw), h('th', { scope: 'col' }, 'Last half hour'),
          heading('Req/s', 'rps', redraw, 'num'), heading('Failed', 'failed', redraw, 'num'), heading('p50', 'p50', redraw, 'num'), heading('p99', 'p99', redraw, 'num'), heading('In flight', 'flight', redraw, 'num'), h('th', { scope: 'col' }, 'Versions'))),
        h('tbody', {}, shown.map((model) => row(model, curves))))) : h('p', { class: 'soft pad' }, board.models.length ? 'No model is called that.' : 'There are no models yet. Register one: chips register NAME URL'),
      found.length > shown.length ? h('p', { class: 'pad' }, h('button', { type: 'button', onclick: () => { view.shown += 200; redraw(); } }, `Show more (${found.length - shown.length} left)`)) : null),
  ];
}

function heading(label, order, redraw, kind) {
  return h('th', { scope: 'col', class: kind, 'aria-sort': view.sort === order ? (order === 'name' ? 'ascending' : 'descending') : null },
    h('button.sort', { type: 'button', 'aria-pressed': String(view.sort === order), onclick: () => { view.sort = order; redraw(); } }, label));
}

function row(model, curves) {
  const late = model.latency_s && model.p99_ms > model.latency_s * 1000;
  const failing = model.failed_share > (model.availability ? 1 - model.availability : 0.01);
  return h('tr', { id: `row-${model.name}` },
    h('th.name', { scope: 'row' }, h('a', { href: `#/model/${encodeURIComponent(model.name)}` }, model.name), model.enabled ? null : h('span.pill.warn', {}, 'disabled'), h('small', {}, model.description)),
    h('td.wide', {}, spark(curves && curves.models[model.name], model.name)),
    h('td.num', { 'data-label': 'Req/s' }, rate(model.rps)),
    h('td.num', { 'data-label': 'Failed', class: failing ? 'num bad' : 'num' }, percent(model.failed_share)),
    h('td.num', { 'data-label': 'p50' }, ms(model.p50_ms)),
    h('td.num', { 'data-label': 'p99', class: late ? 'num bad' : 'num' }, ms(model.p99_ms), late ? h('span', {}, ' late') : null),
    h('td.num', { 'data-label': 'In flight' }, count(model.in_flight)),
    h('td', { 'data-label': 'Versions' }, model.versions.filter((v) => v.traffic || v.rps).map((v) => `${v.version} (${v.traffic} %)`).join(', ') || '–', split(model.versions)));
}

export function split(versions) {
  const shares = versions.filter((version) => version.traffic);
  return shares.length > 1 ? h('div.split', { 'aria-hidden': 'true' }, versions.map((version, index) => version.traffic ? h(`i.c${index % 6}`, { place: ['', `${version.traffic}%`] }) : null)) : null;
}
