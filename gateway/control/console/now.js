// Is everything all right? What is failing or slow now, worst first; a calm page when nothing is.
import { Command, Tile, html } from './ui.js';
import { read } from './api.js';
import { Traffic } from './charts.js';
import { Issue, RegistryIssue, registryIsWell } from './issues.js';
import { bytes, count, ms, percent, plural, rate } from './format.js';
import { WINDOWS, href, kept, windowOf } from './place.js';

export const every = 2500;

export async function load(place, before) {
  const overview = await read(`/-/overview?window=${windowOf(place)}`);
  const { generation } = overview.registry;
  let changes = before && before.generation === generation ? before.changes : null;
  // A history that cannot be read takes nothing from the rest of the page.
  if (!changes && overview.issues.length) changes = (await read('/-/history?kind=models&limit=100').catch(() => ({ changes: [] }))).changes;
  return { overview, changes, generation };
}

export function page(place, { overview, changes }) {
  const { gateway, registry, issues, issues_found, listed, window, window_s } = overview;
  const troubles = issues_found + (registryIsWell(registry) ? 0 : 1);
  const refused = issues.filter((issue) => issue.kind === 'refused').length;
  const serious = troubles - refused;
  const onlySlow = registryIsWell(registry) && issues.every((issue) => ['late', 'slower', 'refused'].includes(issue.kind));
  return html`
    <div class="verdict ${!serious ? 'is-ok' : onlySlow ? 'is-warn' : 'is-bad'}" role="status">
      <h1>${serious ? plural(serious, 'thing needs', 'things need') + ' attention' : 'Everything is all right'}</h1>
      <p>${sentence(overview)}${refused > 0 && ` ${plural(refused, 'model refuses', 'models refuse')} requests of callers, for the callers to look at.`}</p>
    </div>
    <${RegistryIssue} registry=${registry} />
    ${issues.map((issue) => html`<${Issue} key=${`${issue.kind} ${issue.side} ${issue.model} ${issue.version}`} issue=${issue} window=${window} at=${overview.at} changes=${changes} />`)}
    ${issues_found > issues.length && html`<p class="soft">And ${count(issues_found - issues.length)} more: see <a href=${href('models', '', { sort: 'failed', ...kept(place) })}>the models by failures</a>.</p>`}
    ${listed === 0 && html`<section class="card"><h2>No models yet</h2><${Command} label="Register the first one" text="chips register NAME URL" /></section>`}
    <dl class="tiles four">
      <${Tile} label="Requests per second" value=${rate(gateway.rps)} more=${`${count(gateway.requests)} in the last ${WINDOWS[window]}, ${count(gateway.in_flight)} in flight`} />
      ${failingTiles(gateway)}
      <${Tile} label="Latency p99" value=${ms(gateway.p99_ms)} more=${`median ${ms(gateway.p50_ms)}, backends’ p99 ${ms(gateway.backend_p99_ms)}`} />
      <${Tile} label="Gateway’s own time" value=${ms(gateway.overhead_p50_ms)} more=${`median since the start, p99 ${ms(gateway.overhead_p99_ms)}`} />
      <${Tile} label="Memory" value=${bytes(gateway.memory_bytes)} more=${plural(gateway.workers, 'process', 'processes')} />
      <${Tile} label="Registry’s generation" value=${registry.generation === null ? 'not read' : count(registry.generation)} more=${registry.connected ? 'connected' : 'does not answer'} mood=${registry.connected ? '' : 'bad'} />
    </dl>
    <section class="card"><h2>Requests of the last hour, by minute</h2><${Traffic} curve=${overview.curve} now=${overview.window_ends} /></section>
    ${window_s < { '10s': 10, '1m': 60, '1h': 3600 }[window] && html`<p class="soft">Figures go back ${Math.round(window_s)} seconds only: there are none from before.</p>`}`;
}

function failingTiles({ failing, requests }) {
  const labels = { gateway: 'Failed: ours', backend: 'Failed: backends’', caller: 'Failed: callers’' };
  return Object.entries(labels).map(([side, label]) => html`<${Tile} label=${label} value=${percent(requests ? failing[side] / requests : 0)} more=${plural(failing[side], 'request')} mood=${failing[side] && side !== 'caller' ? 'bad' : ''} />`);
}

function sentence({ gateway, window, listed, called, disabled }) {
  const models = `${plural(listed, 'model')} listed${disabled ? `, ${count(disabled)} disabled` : ''}`;
  if (!gateway.requests) return `Nobody has called in the last ${WINDOWS[window]}. ${models}.`;
  const { gateway: ours, backend } = gateway.failing;
  const failed = ours + backend;
  return `${plural(gateway.requests, 'request')} to ${plural(called, 'model')} in the last ${WINDOWS[window]}; ${failed ? `${count(failed)} failed on the gateway’s or a backend’s side` : 'none failed on the gateway’s or a backend’s side'}. ${models}.`;
}
