// All models, a page at a time.
import { Command, Pager, Pill, Table, html } from './ui.js';
import { read } from './api.js';
import { Spark } from './charts.js';
import { count, ms, percent, plural, rate } from './format.js';
import { WINDOWS, having, href, kept, windowOf } from './place.js';

export const every = 3000;
const LIMIT = 50;
const ORDERS = { name: 'Model', rps: 'Req/s', failed: 'Failed', p50: 'p50', p99: 'p99', in_flight: 'In flight' };

export async function load(place) {
  const { find = '', sort = 'rps', skip = '0' } = place.query;
  return read(`/-/models?${new URLSearchParams({ window: windowOf(place), find, sort, skip, limit: LIMIT })}`);
}

export function page(place, data, change) {
  const { models, found, listed, window } = data;
  const skip = Number(place.query.skip || 0);
  return html`
    <div class="head"><div><h1>Models</h1><p class="sub">Figures of the last ${WINDOWS[window]}.</p></div></div>
    <section class="card flush" aria-label="Models">
      <form class="filters" role="search" onsubmit=${(event) => event.preventDefault()}>
        <label class="field grow">Find<input type="search" id="find" value=${place.query.find || ''} placeholder="name or description" autocomplete="off" oninput=${(event) => change({ find: event.target.value, skip: '' })} /></label>
        <span class="soft" role="status">${count(found)} of ${plural(listed, 'model')}</span>
      </form>
      ${models.length ? html`<${Table} caption="Models with their traffic, failures and latency" columns=${columns(place)}>${models.map((model) => html`<${Row} key=${model.name} model=${model} now=${data.window_ends} place=${place} />`)}<//>`
        : listed ? html`<p class="pad soft">No model has that in its name or description.</p>` : html`<div class="pad"><${Command} label="There are no models yet. Register one" text="chips register NAME URL" /></div>`}
      <${Pager} skip=${skip} limit=${LIMIT} found=${found} to=${(next) => having(place, { skip: next || '' })} />
    </section>`;
}

function columns(place) {
  const sorted = place.query.sort || 'rps';
  const heading = (order, kind) => [ORDERS[order], kind, {
    props: { 'aria-sort': sorted === order ? (order === 'name' ? 'ascending' : 'descending') : null },
    content: html`<a class="sort" href=${having(place, { sort: order, skip: '' })}>${ORDERS[order]}${sorted === order ? (order === 'name' ? ' ↑' : ' ↓') : ''}</a>` }];
  return [heading('name'), ['Last hour'], heading('rps', 'num'), heading('failed', 'num'), heading('p50', 'num'), heading('p99', 'num'), heading('in_flight', 'num'), ['Versions']];
}

// How many of the requests failed, by the side that can fix it.
export function Failing({ figures }) {
  const requests = figures.requests_in_window ?? figures.requests;
  const { gateway, backend, caller } = figures.failing;
  if (!gateway && !backend && !caller) return html`<span class="soft">none</span>`;
  return html`${gateway > 0 && html`<span class="bad line">ours ${percent(gateway / requests)}</span>`}${backend > 0 && html`<span class="bad line">backend’s ${percent(backend / requests)}</span>`}${caller > 0 && html`<span class="soft line">callers’ ${percent(caller / requests)}</span>`}`;
}

function Row({ model, now, place }) {
  const late = model.latency_s && model.p99_ms > model.latency_s * 1000;
  return html`<tr id="row-${model.name}">
    <th class="name" scope="row"><a href=${href('model', model.name, kept(place))}>${model.name}</a>${!model.enabled && html` <${Pill} mood="warn">disabled<//>`}<small>${model.description}</small></th>
    <td class="wide"><${Spark} curve=${model.curve} now=${now} label=${model.name} /></td>
    <td class="num" data-label="Req/s">${rate(model.rps)}</td>
    <td class="num" data-label="Failed"><${Failing} figures=${model} /></td>
    <td class="num" data-label="p50">${ms(model.p50_ms)}</td>
    <td class="num ${late ? 'bad' : ''}" data-label="p99">${ms(model.p99_ms)}${late && html`<span class="line">late</span>`}</td>
    <td class="num" data-label="In flight">${count(model.in_flight)}</td>
    <td data-label="Versions"><${Split} versions=${model.versions} /></td>
  </tr>`;
}

function Split({ versions }) {
  const shown = versions.filter((one) => one.traffic || one.rps);
  if (!shown.length) return '–';
  return html`${shown.map((one) => `${one.version} (${one.traffic} %)`).join(', ')}
    ${shown.length > 1 && html`<div class="split" aria-hidden="true">${versions.map((one, index) => one.traffic > 0 && html`<i class="c${index % 6}" style=${{ width: `${one.traffic}%` }}></i>`)}</div>`}`;
}
