// One request: who, what, where the time went.
import { h } from './dom.js';
import { read } from './api.js';
import { bytes, moment, ms, status } from './format.js';

const WAITS = ['limits', 'body', 'queue', 'cold start', 'wait for a connection'];

export async function load(id) {
  for (let tries = 0; ; tries += 1) {
    try { return await read(`/-/requests/${encodeURIComponent(id)}`); } catch (error) {
      if (error.status !== 404 || tries >= 6) throw error;
      await new Promise((resolve) => setTimeout(resolve, 400)); // a request a moment old is still on its way into the store
    }
  }
}

export function request(id, loaded) {
  if (!loaded) return [h('h1', {}, 'Request'), h('p.soft', {}, 'Loading…')];
  return loaded.requests.map((one) => story(one));
}

function story(one) {
  const facts = [
    ['When', moment(one.at)],
    ['Caller', one.caller ? `${one.caller}${one.caller_label ? ` (${one.caller_label})` : ''} from ${one.address}` : one.address],
    ['Answered by', one.model ? [h('a', { href: `#/model/${encodeURIComponent(one.model)}` }, one.model), `@${one.version} at ${one.url}`] : 'the gateway itself'],
    one.artifact_digest ? ['Artifact', h('code', {}, one.artifact_digest)] : null,
    ['Routed by', `registry generation ${one.generation}, gateway ${one.gateway}`],
    ['Sizes', `${bytes(one.bytes_in)} in, ${bytes(one.bytes_out)} out`],
    ['Kept because', { asked: 'an operator asked for it', caller: 'the caller asked for it', sampled: 'it was drawn', failed: 'it failed', slow: 'it was slower than 99 % of the model’s last minute', left: 'the caller left first', recent: 'there was room' }[one.kept] || one.kept],
    ['Trace', h('code', {}, one.trace_id)],
    ['At the terminal', h('code', {}, `chips why ${one.request_id}`)],
  ].filter(Boolean);
  return h('article', { class: 'stacked' },
    h('div.head', {}, h('div', {}, h('p.sub', {}, h('a', { href: '#/requests' }, 'Requests'), ' /'), h('h1', {}, `${one.method} ${one.path}`),
      h('p.sub', {}, h('span', { class: `pill ${status(one.status)}` }, String(one.status)), ` ${ms(one.duration_s * 1000)}, of which ${ms(share(one) * 1000)} the gateway’s own`))),
    one.error ? h('p.note.bad', {}, h('strong', {}, `${one.error} `), `(${one.side}) `, one.detail || (one.side === 'backend' ? 'The backend answered this itself; its own log, under the same request id, says why.' : ''), one.cause ? h('span.soft', {}, ` Behind it: ${one.cause}`) : null) : null,
    h('section.card.flush', {}, h('h2', {}, 'Where the time went'), waterfall(one)),
    h('section.card', {}, h('h2', {}, 'What it was'), h('dl.facts', {}, facts.map(([label, text]) => [h('dt', {}, label), h('dd', {}, text)]))));
}

function share(one) {
  const backend = one.attempts.reduce((sum, attempt) => sum + ((attempt.ended === undefined || attempt.ended === null ? one.duration_s : attempt.ended) - attempt.began), 0);
  return Math.max(one.duration_s - backend - one.queued_s - one.rate_limit_s - one.buffering_s, 0);
}

function waterfall(one) {
  const total = one.duration_s || 1e-9;
  const depths = {};
  return h('div.scroll', { tabindex: 0, role: 'region', 'aria-label': 'Waterfall' }, h('table.waterfall', {}, h('caption', {}, 'Spans of this request, in the order in which they began'),
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Span'), h('th.track', { scope: 'col' }, `0 – ${ms(total * 1000)}`), h('th.num', { scope: 'col' }, 'Took'), h('th.num', { scope: 'col' }, 'From'))),
    h('tbody', {}, one.spans.map((span) => {
      const depth = span.parent_id in depths ? depths[span.parent_id] + 1 : 0;
      depths[span.span_id] = depth;
      const kind = span.error ? 'error' : span.name.startsWith('backend ') ? 'backend' : WAITS.includes(span.name) ? 'waited' : span.kind || 'internal';
      return h('tr', {}, h('th', { scope: 'row' }, '\u2003'.repeat(depth), span.name, span.error ? [' ', h('span.pill.bad', {}, span.error)] : null),
        h('td.track', {}, h('div', {}, h('i', { class: `${kind}${span.attributes && span.attributes['chips.start_estimated'] ? ' estimated' : ''}`, place: [`${Math.min((span.start_s / total) * 100, 99.5)}%`, `${Math.max(((span.end_s - span.start_s) / total) * 100, 0)}%`] }))),
        h('td.num', {}, ms((span.end_s - span.start_s) * 1000)), h('td.num.soft', {}, ms(span.start_s * 1000)));
    }))));
}
