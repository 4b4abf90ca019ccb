// Why was this one slow or wrong? Who, what, where the time went.
import { Command, Facts, Pill, html } from './ui.js';
import { Refused, read } from './api.js';
import { ticks } from './charts.js';
import { chips, traceOf } from './commands.js';
import { SIDES, axisMs, bytes, code, kept, moment, ms, percent, status } from './format.js';
import { href } from './place.js';

export const every = 0;
const WAITS = ['limits', 'body', 'queue', 'cold start', 'wait for a connection', 'route', 'authenticate'];
const SEEN = 0.005; // of the whole: what is shorter needs no name

export async function load({ name }) {
  for (let tries = 0; ; tries += 1) {
    try { return await read(`/-/requests/${encodeURIComponent(name)}`); } catch (error) {
      if (!(error instanceof Refused) || error.status !== 404 || tries >= 6) throw error;
      await new Promise((resolve) => { setTimeout(resolve, 400); }); // a request a moment old is still on its way into the store
    }
  }
}

export function page(place, { requests }) { return requests.map((one) => html`<${Story} key=${one.span_id} one=${one} />`); }

function Story({ one }) {
  const took = shares(one);
  return html`<article class="stacked">
    <div class="head"><div><p class="sub"><a href="#/requests">Requests</a> /</p><h1>${one.method} ${one.path}</h1>
      <p class="sub"><${Pill} mood=${status(one.status)}>${one.status}<//> ${ms(one.duration_s * 1000)} on ${moment(one.at)} UTC</p></div></div>
    <p class="answer">${verdict(one, took)}</p>
    ${one.error && html`<div class="note bad"><p><strong>${code(one.error)}</strong>, for ${SIDES[one.side] || one.side} to fix. ${one.detail}</p>${one.cause && html`<p class="soft">Behind it: ${one.cause}</p>`}${help(one)}</div>`}
    <section class="card"><h2>Where the time went</h2><${Waterfall} one=${one} /></section>
    <div class="columns">
      <section class="card"><h2>What it was</h2><${Facts} rows=${facts(one)} /></section>
      <section class="card"><h2>At a terminal</h2><div class="commands"><${Command} label="The same as text" text=${traceOf(one.request_id)} />
        ${one.model && html`<${Command} label=${`What changed in ${one.model}`} text=${chips('history', one.model)} />`}
        ${one.url && html`<${Command} label="Check this backend" text=${chips('verify', one.url, '--short')} />`}</div></section>
    </div>
  </article>`;
}

const CHOSEN_BY = { sticky: ', chosen by the caller’s sticky share', pin: ', chosen by the caller' };

function facts(one) {
  const who = one.caller ? html`<a href=${href('requests', '', { caller: one.caller })} title=${one.caller}>${one.caller_label || one.caller}</a> <span class="soft">(${one.caller})</span> from ${one.address}` : one.address;
  return [
    ['When', `${moment(one.at, true)} UTC`],
    ['Caller', who],
    ['Answered by', one.model ? html`<a href=${href('model', one.model)}>${one.model}</a>@${one.version} at ${one.url}${CHOSEN_BY[one.assigned] || ''}` : 'the gateway itself'],
    one.artifact_digest && ['Artifact', html`<code>${one.artifact_digest}</code>`],
    ['Routed by', `the registry’s generation ${one.generation}, in the process ${one.gateway}`],
    ['Sizes', `${bytes(one.bytes_in)} in, ${bytes(one.bytes_out)} out`],
    ['Kept because', kept(one.kept)],
    ['Request id', html`<code>${one.request_id}</code>`],
    ['Trace id', html`<code>${one.trace_id}</code>`],
  ];
}

// Where the time of the whole request went, in seconds.
function shares(one) {
  const backend = one.attempts.reduce((sum, attempt) => sum + ((attempt.ended ?? one.duration_s) - attempt.began), 0);
  const waits = one.queued_s + one.rate_limit_s;
  return { backend, waits, body: one.buffering_s, own: Math.max(one.duration_s - backend - waits - one.buffering_s, 0) };
}

const PARTS = { backend: 'at the backend', waits: 'in the gateway’s queue and limits', body: 'waiting for the caller to send the body', own: 'in the gateway’s own work' };

function verdict(one, took) {
  const [most, seconds] = Object.entries(took).sort((a, b) => b[1] - a[1])[0];
  const phases = one.spans.filter((span) => span.name.startsWith('backend ')).map((span) => [span.name.slice(8), span.end_s - span.start_s]).sort((a, b) => b[1] - a[1]);
  const reported = phases.reduce((sum, [, took_s]) => sum + took_s, 0);
  const inPhase = most !== 'backend' || !phases.length ? '' : phases[0][1] > seconds / 2 ? `, mostly in its phase “${phases[0][0]}” (${ms(phases[0][1] * 1000)})`
    : reported < seconds / 2 ? `, mostly on the way there and back or in what the backend does not report (${ms((seconds - reported) * 1000)})` : '';
  const tries = one.attempts.length > 1 ? ` It took ${one.attempts.length} attempts.` : '';
  return `${percent(seconds / (one.duration_s || 1e-9))} of the time was spent ${PARTS[most]}${inPhase}.${tries}`;
}

function help(one) {
  if (one.side !== 'backend' && one.error !== 'answered-4xx') return null;
  if (one.error === 'answered-4xx') return html`<p class="soft">The backend refused the request itself, and its answer told the caller why. The gateway keeps no bodies. <a href="/-/docs/#${encodeURIComponent(one.model)}">What ${one.model} takes</a> shows its fields.</p>`;
  return one.error === 'answered-5xx' ? html`<p class="soft">The backend’s own log says why, under the request id ${one.request_id}.</p>` : null;
}

// The spans in order, each with its depth, and a row for time that no span covers.
export function rows({ spans, duration_s }) {
  const depths = {};
  const found = spans.map((span) => {
    depths[span.span_id] = span.parent_id in depths ? depths[span.parent_id] + 1 : 0;
    const kind = span.error ? 'error' : span.name.startsWith('backend ') ? 'backend' : WAITS.includes(span.name) ? 'waited' : span.kind || 'internal';
    return { ...span, depth: depths[span.span_id], kind, guessed: Boolean(span.attributes && span.attributes['chips.start_estimated']) };
  });
  const gaps = found.flatMap((span) => {
    const children = found.filter((one) => one.parent_id === span.span_id);
    return children.length ? between(span, children, duration_s) : [];
  });
  for (const gap of gaps) {
    const after = found.filter((one) => one.parent_id === gap.parent_id && one.start_s < gap.start_s).at(-1);
    let index = found.findIndex((one) => one.span_id === (after ? after.span_id : gap.parent_id)) + 1;
    if (after) while (index < found.length && found[index].depth > after.depth) index += 1;
    found.splice(index, 0, gap);
  }
  return found;
}

function between(span, children, total) {
  const name = span.kind === 'server' ? 'gateway’s own work' : span.name === 'wait' ? 'network, or not reported by the backend' : 'not covered by a span';
  const gaps = [];
  let from = span.start_s;
  for (const child of [...children, { start_s: span.end_s, end_s: span.end_s }].sort((a, b) => a.start_s - b.start_s)) {
    if (child.start_s - from > Math.max(total * SEEN, 1e-6)) gaps.push({ name, parent_id: span.span_id, span_id: `${span.span_id} ${from}`, depth: span.depth + 1, kind: 'gap', start_s: from, end_s: child.start_s });
    from = Math.max(from, child.end_s);
  }
  return gaps;
}

function Waterfall({ one }) {
  const total = one.duration_s * 1000 || 1e-6;
  const marks = ticks(total, 4).filter((value) => value <= total * 1.0001);
  const place = (value) => `${Math.min((value / total) * 100, 100)}%`;
  return html`<div class="waterfall" role="table" aria-label="Spans of this request, in the order in which they began">
    <div class="axis" role="row"><span role="columnheader">Part</span><div class="track" role="columnheader" aria-label=${`From 0 to ${ms(total)}`}>${marks.map((value, index) => html`<span class=${index && value > total * 0.88 ? 'last' : index ? '' : 'first'} style=${{ left: place(value) }}>${axisMs(value)}</span>`)}</div><span role="columnheader" class="num">Took</span></div>
    ${rows(one).map((span) => html`<div class="span ${span.kind}" role="row" key=${span.span_id}>
      <span class="name" role="rowheader" style=${{ paddingLeft: `${Math.min(span.depth, 6) * 0.9}rem` }}>${span.name}${span.error && html` <${Pill} mood="bad">${span.error}<//>`}</span>
      <div class="track" role="cell" title=${`from ${ms(span.start_s * 1000)} to ${ms(span.end_s * 1000)}`} aria-label=${`begins at ${ms(span.start_s * 1000)}`}>${marks.map((value) => html`<b style=${{ left: place(value) }}></b>`)}
        <i class=${span.guessed ? 'estimated' : ''} style=${{ left: `${Math.min((span.start_s * 1e5) / total, 99.5)}%`, width: `${Math.max(((span.end_s - span.start_s) * 1e5) / total, 0)}%` }}></i></div>
      <span class="num" role="cell">${ms((span.end_s - span.start_s) * 1000)}</span>
    </div>`)}
    <ul class="legend key" role="presentation">${[['server', 'whole request'], ['client', 'attempt at the backend'], ['backend', 'reported by the backend (its place is estimated)'], ['waited', 'waiting'], ['gap', 'no span']].map(([kind, text]) => html`<li role="presentation"><span class="swatch ${kind}"></span>${text}</li>`)}</ul>
  </div>`;
}
