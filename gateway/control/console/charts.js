// Small pictures. Each carries in words what it shows.
import { h, s } from './dom.js';
import { ms, count } from './format.js';

export function spark(curve, label) {
  const [requests, failed] = curve || [[], []];
  const top = Math.max(1, ...requests);
  const width = Math.max(requests.length - 1, 1);
  const point = (value, index) => `${index} ${(30 - (value / top) * 28).toFixed(2)}`;
  const total = requests.reduce((a, b) => a + b, 0);
  const bad = failed.reduce((a, b) => a + b, 0);
  const line = requests.map(point).join(' L ');
  return s('svg', { class: 'spark', viewBox: `0 0 ${width} 32`, preserveAspectRatio: 'none', role: 'img',
    'aria-label': `${label}: ${count(total)} requests in the last half hour, ${count(bad)} failed` },
  requests.length ? s('path', { class: 'area', d: `M 0 30 L ${line} L ${width} 30 Z` }) : null,
  requests.length ? s('path', { class: 'line', d: `M ${line}` }) : null,
  ...failed.map((value, index) => value
    ? s('path', { class: 'failed', d: `M ${index - 0.35} 30 h 0.7 v -${Math.max(3, (value / top) * 28).toFixed(2)} h -0.7 Z` }) : null));
}

export function legend(names) {
  return h('ul.legend', {}, names.map((name, index) => h('li', {}, h(`span.swatch.c${index % 6}`), `version ${name}`)));
}

// One row of bars per version over one axis of time, so that a slow one stands out by its place.
export function distribution(bounds, versions) {
  const names = Object.keys(versions);
  const used = bounds.map((_, i) => names.some((name) => versions[name].buckets[i] > 0));
  const first = Math.max(used.indexOf(true) - 1, 0);
  const last = Math.min(used.lastIndexOf(true) + 1, bounds.length - 1);
  if (used.indexOf(true) < 0) return h('p.soft', {}, 'No requests yet.');
  const columns = last - first + 1;
  const rowHeight = 54;
  const height = names.length * rowHeight + 22;
  const width = 640;
  const step = (width - 20) / columns;
  const rows = names.map((name, row) => {
    const buckets = versions[name].buckets.slice(first, last + 1);
    const total = versions[name].buckets.reduce((a, b) => a + b, 0) || 1;
    const top = Math.max(...buckets, 1);
    const floor = (row + 1) * rowHeight - 6;
    return s('g', { class: `c${row % 6}` },
      s('line', { class: 'grid', x1: 10, x2: width - 10, y1: floor, y2: floor }),
      ...buckets.map((value, i) => value ? s('rect', { x: 10 + i * step + 1, width: Math.max(step - 2, 1),
        y: floor - Math.max(2, (value / top) * (rowHeight - 16)), height: Math.max(2, (value / top) * (rowHeight - 16)), rx: 2, fill: 'currentColor' },
      s('title', {}, `version ${name}: ${(100 * value / total).toFixed(1)} % up to ${ms(bounds[first + i])}`)) : null));
  });
  const every = Math.ceil(columns / 9);
  const ticks = bounds.slice(first, last + 1).map((bound, i) => i % every === 0
    ? s('text', { x: 10 + (i + 1) * step, y: height - 5, 'text-anchor': 'middle' }, ms(bound).replace('.0 ', ' ').replace('.00 ', ' ')) : null);
  const words = names.map((name) => `version ${name}: half within ${ms(versions[name].p50_ms)}, 99 % within ${ms(versions[name].p99_ms)}`).join('; ');
  return s('svg', { class: 'chart', viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `Distribution of latency. ${words}` }, ...rows, ...ticks);
}

// p99 (solid) and p50 (dashed) of each version over the last half hour.
export function latencies(history, names, now) {
  if (!history.length) return h('p.soft', {}, 'No history yet: it begins 15 seconds after the first request.');
  const width = 640; const height = 190; const left = 48; const floor = height - 20;
  const since = Math.min(...history.map((tick) => tick.at), now - 120);
  const top = Math.max(...history.map((tick) => tick.p99_ms || 0), 1) * 1.08;
  const x = (at) => left + ((at - since) / (now - since)) * (width - left - 6);
  const y = (value) => floor - (value / top) * (floor - 8);
  const grid = [0, 0.25, 0.5, 0.75, 1].map((share) => [s('line', { class: 'grid', x1: left, x2: width, y1: y(top * share), y2: y(top * share) }),
    s('text', { x: left - 6, y: y(top * share) + 4, 'text-anchor': 'end' }, ms(top * share))]).flat();
  const minutes = (now - since) / 60;
  const times = [0, 0.5, 1].map((share) => s('text', { x: left + share * (width - left - 6), y: height - 3, 'text-anchor': share === 0 ? 'start' : share === 1 ? 'end' : 'middle' },
    share === 1 ? 'now' : `${Math.round(minutes * (1 - share))} min ago`));
  const lines = names.map((name, index) => {
    const ticks = history.filter((tick) => tick.version === name && tick.p99_ms !== null);
    const path = (field) => ticks.map((tick, i) => `${i && tick.at - ticks[i - 1].at < 60 ? 'L' : 'M'} ${x(tick.at).toFixed(1)} ${y(tick[field]).toFixed(1)}`).join(' ');
    return s('g', { class: `c${index % 6}`, fill: 'none', stroke: 'currentColor', 'stroke-width': 2, 'stroke-linejoin': 'round', 'stroke-linecap': 'round' },
      s('path', { d: path('p99_ms') }), s('path', { class: 'p50', d: path('p50_ms'), 'stroke-width': 1.5 }));
  });
  return s('svg', { class: 'chart', viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `Latency by version over the last ${Math.round(minutes)} minutes: 99th percentile solid, median dashed` }, ...grid, ...lines, ...times);
}
