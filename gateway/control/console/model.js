// One model: its versions next to each other, so that the one that is slow or fails stands out.
import { Command, Facts, Pill, Table, Tile, html } from './ui.js';
import { read } from './api.js';
import { Distribution, Latencies, Legend } from './charts.js';
import { chips, traffic } from './commands.js';
import { WHOSE, axisMs, bytes, code, count, ms, percent, plural, rate } from './format.js';
import { Issue } from './issues.js';
import { Failing } from './models.js';
import { RequestTable } from './requests.js';
import { WINDOWS, href, kept, windowOf } from './place.js';

export const every = 4000;

export async function load(place, before) {
  const name = encodeURIComponent(place.name);
  const [detail, slow, failed] = await Promise.all([read(`/-/models/${name}?window=${windowOf(place)}`), read(`/-/requests?kind=slowest&limit=6&model=${name}`), read(`/-/requests?kind=failed&limit=6&model=${name}`)]);
  const { generation } = detail.registry;
  let { changes, cards } = before && before.generation === generation ? before : {};
  if (!changes) changes = (await read(`/-/history?limit=5&model=${name}`).catch(() => ({ changes: [] }))).changes;
  if (!cards) cards = (await read(`/-/cards?model=${name}`).catch(() => ({ cards: [] }))).cards;
  return { detail, slow: slow.requests, failed: failed.requests, note: slow.note, changes, cards, generation };
}

export function page(place, { detail, slow, failed, note, changes, cards }) {
  const { model, versions, figures, window, issues } = detail;
  const policy = model.policy || {};
  const names = versions.map((one) => one.version);
  const late = policy.latency_s && figures.p99_ms > policy.latency_s * 1000;
  return html`
    <div class="head"><div><p class="sub"><a href=${href('models', '', kept(place))}>Models</a> /</p><h1>${model.name}</h1><p class="sub">${model.description || 'No description.'}</p>${model.owner && html`<p class="sub">Owner: ${model.owner}</p>`}</div>
      <p class="bar"><a href="/-/docs/#${encodeURIComponent(model.name)}">How to call it</a> <a href=${href('requests', '', { model: model.name })}>Its requests</a> <a href=${href('changes', '', { model: model.name })}>Its changes</a></p></div>
    ${model.enabled === false && html`<div class="note bad"><p>This model is disabled: callers get 404.</p><${Command} label="Take it into service again" text=${chips('enable', model.name)} /></div>`}
    ${issues.map((issue) => html`<${Issue} key=${issue.kind + issue.side + issue.version} issue=${issue} window=${window} at=${detail.at} changes=${changes} />`)}
    <dl class="tiles">
      <${Tile} label="Requests per second" value=${rate(figures.rps)} more=${`${count(figures.requests)} in the last ${WINDOWS[window]}, ${count(detail.in_flight)} in flight`} />
      <div class="tile"><dt>Failed</dt><dd class="smaller"><${Failing} figures=${figures} /><small>${policy.availability ? `objective: at most ${Number(((1 - policy.availability) * 100).toPrecision(4))} % ours and the backend’s` : 'by the side that can fix it'}</small></dd></div>
      <${Tile} label="Latency p99" value=${ms(figures.p99_ms)} more=${policy.latency_s ? `objective ${axisMs(policy.latency_s * 1000)}; median ${ms(figures.p50_ms)}` : `median ${ms(figures.p50_ms)}`} mood=${late ? 'bad' : ''} />
      <${Tile} label="Backend p99" value=${ms(figures.backend_p99_ms)} more="of it, the backend’s time" />
      <${Tile} label="Time-out" value=${`${policy.timeout_s || 60} s`} more="for one request" />
    </dl>
    <section class="card flush"><h2>Versions</h2>
      <${Table} caption="Versions of this model, compared" columns=${['Version', 'Traffic', 'Req/s', 'Failed', 'p50', 'p99', 'Backend p99', 'Since the start'].map((label, i) => [label, i && i < 7 ? 'num' : ''])}>
        ${versions.map((one, index) => html`<${Version} one=${one} index=${index} issues=${issues} policy=${policy} />`)}<//>
      <div class="pad commands"><${Command} label="Split the traffic anew (edit the figures)" text=${traffic(model.name, model.traffic)} />${model.enabled !== false && html`<${Command} label="Take the model out of service" text=${chips('disable', model.name)} />`}</div>
    </section>
    ${detail.rollout && html`<${Rollout} found=${detail.rollout} />`}
    ${detail.shadow && html`<${Shadow} found=${detail.shadow} />`}
    ${cards.map((card) => html`<${Card} key=${card.version} card=${card} />`)}
    <div class="columns">
      <section class="card"><h2>How long requests took in the last hour</h2><${Legend} names=${names} /><${Distribution} bounds=${detail.bounds_ms} versions=${versions} /></section>
      <section class="card"><h2>p99 (solid) and median (dashed) over the last hour</h2><${Legend} names=${names} /><${Latencies} history=${detail.history} names=${names} now=${detail.window_ends} limit=${policy.latency_s ? policy.latency_s * 1000 : null} /></section>
    </div>
    ${note ? html`<p class="note">${note}</p>` : html`<section class="card flush" id="slowest"><h2>Slowest requests that are kept</h2><${RequestTable} found=${slow} caption="Slowest requests of this model" /></section>
    <section class="card flush" id="failed"><h2>Requests that failed</h2><${RequestTable} found=${failed} caption="Failed requests of this model" /></section>`}
    <div class="columns">
      <section class="card"><h2>Errors in the last ${WINDOWS[window]}</h2><${Errors} errors=${figures.errors} model=${model.name} /></section>
      <section class="card"><h2>Callers since the gateway started</h2><${Callers} callers=${detail.callers} model=${model.name} /></section>
    </div>
    <section class="card"><h2>Policy</h2><${Facts} rows=${policyRows(model)} />${changes && changes.length > 0 && html`<p class="soft">Revision ${detail.revision}, changed ${changes[0].at.slice(0, 19).replace('T', ' ')} UTC by ${changes[0].author || 'somebody'}.</p>`}</section>`;
}

function Version({ one, index, issues, policy }) {
  const { now, backend } = one;
  const slow = issues.some((issue) => issue.version === one.version && issue.others_ms);
  const late = policy.latency_s && now.p99_ms > policy.latency_s * 1000;
  const answers = Object.entries(one.statuses).map(([status, n]) => `${status}: ${count(n)}`).join(', ');
  return html`<tr>
    <th class="name" scope="row"><span class="swatch c${index % 6}"></span>${one.version} ${slow && html`<${Pill} mood="bad">slower than the rest<//>`}
      <small title=${backend && backend.artifact_digest}>${one.listed ? `${backend.url} ${backend.artifact_digest ? backend.artifact_digest.slice(0, 19) : ''}` : 'no longer listed'}</small></th>
    <td class="num" data-label="Traffic">${one.traffic} %</td>
    <td class="num" data-label="Req/s">${rate(now.rps)}</td>
    <td class="num" data-label="Failed"><${Failing} figures=${now} /></td>
    <td class="num" data-label="p50">${ms(now.p50_ms)}</td>
    <td class="num ${slow || late ? 'bad' : ''}" data-label="p99">${ms(now.p99_ms)}</td>
    <td class="num" data-label="Backend p99">${ms(now.backend_p99_ms)}</td>
    <td class="wide" data-label="Since the start">${answers || 'no answers'}<small class="soft line">${[one.retries && plural(one.retries, 'retry', 'retries'), one.cold_starts && plural(one.cold_starts, 'cold start'), `${bytes(one.bytes_in)} in, ${bytes(one.bytes_out)} out`].filter(Boolean).join(', ')}</small></td>
  </tr>`;
}

const MOODS = { succeeded: 'ok', returned: 'bad', held: 'warn' };
const QUESTIONS = { errors: 'Errors', refusals: 'Refused (4xx)', p95: 'Slower than its p95', p99: 'Slower than its p99' };

// The last rollout: how far it is, why, and what both versions did.
function Rollout({ found }) {
  const share = ([n, hits]) => n ? `${count(hits)} of ${count(n)} (${percent(hits / n)})` : '0 of 0';
  const active = found.state === 'running' || found.state === 'held';
  const rows = Object.entries(QUESTIONS).map(([name, label]) => [label, found.evidence[name]]).filter(([, one]) => one && one.candidate[0]);
  return html`<section class="card" id="rollout"><h2>Rollout of version ${found.candidate} <${Pill} mood=${MOODS[found.state]}>${found.state}<//></h2>
    <p>It takes ${found.percent} %: step ${found.step} of ${found.plan.steps.length} (${found.plan.steps.map((step) => `${step} %`).join(', ')}). The stable version is ${found.stable}.</p>
    <p>${found.reason}.${found.waits_for && found.waits_for !== found.reason ? ` Now: ${found.waits_for}.` : ''}</p>
    ${rows.length > 0 && html`<${Facts} rows=${rows.map(([label, one]) => [label, `${one.finding}: ${share(one.candidate)} against ${share(one.stable)}`])} />`}
    <div class="commands">${active && html`<${Command} label="Give all traffic back to the stable version" text=${chips('canary', found.model, '--abort')} />`}
      ${found.state === 'running' && html`<${Command} label="Stay at this step" text=${chips('canary', found.model, '--hold')} />`}
      ${found.state === 'held' && html`<${Command} label="Go on" text=${chips('canary', found.model, '--resume')} />`}</div></section>`;
}

const VERDICTS = { agrees: 'ok', differs: 'bad', fails: 'bad', undecided: 'warn' };

// The last shadow: what a candidate answered to copies of requests, next to how the stable version differs from itself.
function Shadow({ found }) {
  const { shadow, candidate, stable } = found;
  const of = ({ seen, low, high }) => `${exact(seen)} (${exact(low)} to ${exact(high)})`;
  const times = (one) => ['p50', 'p95', 'p99'].map((name) => `${name} ${ms(one[`${name}_s`] === null ? null : one[`${name}_s`] * 1000)}`).join(', ');
  const output = (one) => `${exact(one.agreement.seen)} agree${one.mean_difference === null ? '' : `, mean difference ${number(one.mean_difference)}, largest ${number(one.largest_difference)}`}`;
  const dropped = Object.entries(found.dropped).map(([why, n]) => `${count(n)} ${why}`).join(', ');
  const itself = `version ${shadow.stable} with itself`;
  const differs = (one) => one.amount === undefined ? `${one.path} ${one.what}` : `${one.path} by ${number(one.amount)}`;
  const rows = [
    ['Verdict', `${found.why}.`],
    ['Answers that agree', `${of(found.agreement)} of ${count(found.compared)}; ${itself}: ${of(found.stable_agreement_with_itself)} of ${count(found.stable_compared_with_itself)}`],
    ...Object.entries(found.outputs).map(([name, one]) => [html`Output <code>${name}</code>`, `${output(one.candidate)}${one.stable ? `; ${itself}: ${output(one.stable)}` : ''}`]),
    ...[[shadow.candidate, candidate], [shadow.stable, stable]].map(([version, one]) => [`Version ${version}`, `${count(one.failed)} of ${plural(one.requests, 'request')} failed; ${times(one)}`]),
    ['Sampled', `${plural(found.sampled, 'request')}${dropped && `; left out: ${dropped}`}`],
  ];
  return html`<section class="card" id="shadow"><h2>Version ${shadow.candidate} in the shadow of version ${shadow.stable} <${Pill} mood=${VERDICTS[found.finding]}>${found.finding}<//></h2>
    <p>${exact(shadow.percent / 100)} of the requests to version ${shadow.stable} also go to version ${shadow.candidate}${found.running ? `, until ${shadow.until.slice(0, 16).replace('T', ' ')} UTC (reported by ${plural(found.gateways, 'gateway process', 'gateway processes')}).` : `. It has ended: ${found.ended}.`}</p>
    <${Facts} rows=${rows} />
    ${found.worst.length > 0 && html`<p class="soft">Where they differ most, by request:</p><${Facts} rows=${found.worst.map((one) => [html`<a href=${href('request', one.request_id)}><code>${one.request_id}</code></a>`, one.differences.map(differs).join('; ')])} />`}
    <div class="commands">${found.running && html`<${Command} label="End it, and keep the verdict as evidence" text=${chips('shadow', shadow.model, '--stop')} />`}</div></section>`;
}

function exact(share) { return `${Number((share * 100).toPrecision(4))} %`; }

function number(value) { return Number(value.toPrecision(3)).toString(); }

// A version's model card: its author's Markdown, shown as the text that it is.
function Card({ card }) {
  const [mood, state] = card.why_not ? ['bad', `does not count: ${card.why_not}`] : card.passed ? ['ok', 'complete'] : ['warn', card.summary];
  return html`<section class="card" id=${`card-${card.version}`}><h2>Model card of version ${card.version} <${Pill} mood=${mood}>${state}<//></h2>
    <${Facts} rows=${card.sections.map(({ heading, text }) => [heading, html`<span class="written">${text}</span>`])} /></section>`;
}

function Errors({ errors, model }) {
  const found = Object.entries(errors).sort((a, b) => b[1] - a[1]);
  if (!found.length) return html`<p class="soft">None.</p>`;
  return html`<${Facts} rows=${found.map(([label, n]) => {
    const [side, name] = [label.split(' ')[0], label.slice(label.indexOf(' ') + 1)];
    return [html`<a href=${href('requests', '', { model, side })}>${WHOSE[side]}</a>`, `${count(n)} × ${code(name)}`];
  })} />`;
}

export function callerName({ caller, label, caller_label }) { return label || caller_label || caller; }

function Callers({ callers, model }) {
  if (!callers.length) return html`<p class="soft">Nobody has called it yet.</p>`;
  return html`<${Facts} rows=${callers.slice(0, 12).map((usage) => [html`<a href=${href('requests', '', { model, caller: usage.caller })} title=${usage.caller}>${callerName(usage)}</a>`, `${plural(usage.requests, 'request')}, ${usage.backend_s.toFixed(1)} s of the backend’s time`])} />`;
}

function policyRows({ policy = {} }) {
  const limit = (value, unit) => value ? `${count(value)} ${unit}` : null;
  return [
    ['Who may call it', policy.access === 'public' ? 'everybody, without a key' : html`keys that may: <code>${chips('keys', 'list')}</code>`],
    ['Objectives', [policy.availability && `${Number((policy.availability * 100).toPrecision(6))} % do not fail`, policy.latency_s && `99 % within ${axisMs(policy.latency_s * 1000)}`].filter(Boolean).join('; ') || html`none; <code>chips export</code> writes the policy to a file, where availability and latency_s set them, and <code>chips import</code> reads it`],
    ['Limits', [limit(policy.requests_per_s, 'requests per second'), limit(policy.requests_per_day, 'a day'), limit(policy.max_in_flight, 'at the backend at once')].filter(Boolean).join('; ') || 'the gateway’s own'],
    policy.networks && policy.networks.length ? ['Networks', policy.networks.join(', ')] : null,
  ];
}
