// One model: its versions side by side, so that the one that is slow or fails stands out.
import { h } from './dom.js';
import { read } from './api.js';
import { distribution, latencies, legend } from './charts.js';
import { bytes, count, ms, percent, rate } from './format.js';
import { table } from './requests.js';
import { tile } from './models.js';
import { tryIt } from './try.js';

export async function load(name) {
  const quoted = encodeURIComponent(name);
  const [detail, slow, failed] = await Promise.all([read(`/-/models/${quoted}`), read(`/-/requests?kind=slowest&limit=8&model=${quoted}`), read(`/-/requests?kind=failed&limit=8&model=${quoted}`)]);
  return { detail, slow: slow.requests, failed: failed.requests };
}

export function model(name, loaded, board, openapi) {
  if (!loaded) return [h('h1', {}, name), h('p.soft', {}, 'Loading…')];
  const { detail, slow, failed } = loaded;
  const live = (board && board.models.find((one) => one.name === name)) || { versions: [] };
  const names = detail.model.backends.map((backend) => backend.version);
  for (const version of Object.keys(detail.versions)) if (!names.includes(version)) names.push(version);
  const charted = {};
  for (const version of names) charted[version] = detail.versions[version] || { buckets: detail.bounds_ms.concat(0).map(() => 0) };
  const policy = detail.model.policy || {};
  const errors = {};
  for (const version of Object.values(detail.versions)) for (const [label, n] of Object.entries(version.errors)) errors[label] = (errors[label] || 0) + n;
  return [
    h('div.head', {}, h('div', {}, h('p.sub', {}, h('a', { href: '#/' }, 'Models'), ' /'), h('h1', {}, name), h('p.sub', {}, detail.model.description || 'No description.')),
      h('p.sub', {}, `revision ${detail.revision}`, detail.model.owner ? `, owned by ${detail.model.owner}` : '')),
    detail.model.enabled === false ? h('p.note.bad', {}, 'This model is disabled: callers get 404.') : null,
    h('dl.tiles', {},
      tile('Requests per second', rate(live.rps), `${count(live.in_flight || 0)} in flight`),
      tile('Failed', percent(live.failed_share), policy.availability ? `objective: at most ${percent(1 - policy.availability)}` : 'on our or the backend’s side', live.failed_share > (policy.availability ? 1 - policy.availability : 0.01) ? 'bad' : ''),
      tile('Latency p99', ms(live.p99_ms), policy.latency_s ? `objective: ${ms(policy.latency_s * 1000)}` : `p50 ${ms(live.p50_ms)}`, policy.latency_s && live.p99_ms > policy.latency_s * 1000 ? 'bad' : ''),
      tile('Backend p99', ms(live.backend_p99_ms)),
      tile('Time allowed', `${policy.timeout_s || 60} s`)),
    h('section.card.flush', {}, h('h2', {}, 'Versions'), h('div.scroll', { tabindex: 0, role: 'region', 'aria-label': 'Table of versions' }, h('table.stack', {}, h('caption', {}, 'Versions of this model, compared'),
      h('thead', {}, h('tr', {}, ...['Version', 'Traffic', 'Req/s', 'Failed', 'p50', 'p99', 'Backend p99', 'Retries', 'Cold starts', 'Answers', 'In / out'].map((label, i) => h('th', { scope: 'col', class: i ? 'num' : '' }, label)))),
      h('tbody', {}, names.map((version, index) => versionRow(version, index, detail, live)))))),
    h('div.columns', {},
      h('section.card', {}, h('h2', {}, 'Latency, last half hour'), legend(names), distribution(detail.bounds_ms, charted)),
      h('section.card', {}, h('h2', {}, 'p99 (solid) and median (dashed) by version'), legend(names), latencies(detail.history, names, Date.now() / 1000))),
    h('div.columns', {},
      h('section.card.flush', {}, h('h2', {}, 'Slowest kept requests'), table(slow, 'Slowest kept requests of this model', true)),
      h('section.card.flush', {}, h('h2', {}, 'Failed requests'), table(failed, 'Failed requests of this model', true))),
    h('div.columns', {},
      h('section.card', {}, h('h2', {}, 'Errors since the start, by side and code'), Object.keys(errors).length ? h('dl.facts', {}, Object.entries(errors).sort((a, b) => b[1] - a[1]).map(([label, n]) => [h('dt', {}, label), h('dd', {}, count(n))])) : h('p.soft', {}, 'None.')),
      h('section.card', {}, h('h2', {}, 'Callers since the start'), detail.callers.length ? h('dl.facts', {}, detail.callers.slice(0, 12).map((usage) => [h('dt', {}, usage.caller), h('dd', {}, `${count(usage.requests)} requests, ${usage.backend_s.toFixed(1)} s of the backend’s time`)])) : h('p.soft', {}, 'None yet.'))),
    tryIt(name, openapi),
  ];
}

function versionRow(version, index, detail, live) {
  const backend = detail.model.backends.find((one) => one.version === version);
  const now = live.versions.find((one) => one.version === version) || {};
  const since = detail.versions[version] || { statuses: {} };
  const cell = (label, ...content) => h('td.num', { 'data-label': label }, ...content);
  const others = live.versions.filter((one) => one.version !== version && one.p50_ms).map((one) => one.p50_ms);
  const slow = others.length > 0 && now.p50_ms > 2 * Math.max(...others);
  return h('tr', {},
    h('th.name', { scope: 'row' }, h(`span.swatch.c${index % 6}`), version, slow ? [' ', h('span.pill.bad', {}, 'slower than the rest')] : null, h('small', { title: backend && backend.artifact_digest }, backend ? `${backend.url} ${backend.artifact_digest ? backend.artifact_digest.slice(0, 19) : ''}` : 'no longer listed')),
    cell('Traffic', `${detail.model.traffic[version] || 0} %`),
    cell('Req/s', rate(now.rps)),
    h('td.num', { 'data-label': 'Failed', class: now.failed_share > 0.01 ? 'num bad' : 'num' }, percent(now.failed_share)),
    cell('p50', ms(now.p50_ms)),
    h('td.num', { 'data-label': 'p99', class: slow ? 'num bad' : 'num' }, ms(now.p99_ms)),
    cell('Backend p99', ms(now.backend_p99_ms)),
    cell('Retries', count(since.retries || 0)),
    cell('Cold starts', count(since.cold_starts || 0)),
    cell('Answers', Object.entries(since.statuses).map(([code, n]) => `${code}: ${count(n)}`).join(', ') || '–'),
    cell('In / out', `${bytes(since.bytes_in || 0)} / ${bytes(since.bytes_out || 0)}`));
}
