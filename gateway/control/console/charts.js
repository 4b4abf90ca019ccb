// Pictures in SVG, so that they follow the theme and need no pixels of their own. Each has round axes, says in words what it
// shows, gives exact figures under the pointer and the arrow keys, and has all of them as a table.
import { Component, html } from './ui.js';
import { axisMs, clock, count, ms, percent, plural } from './format.js';

const LEFT = 56;
const BOTTOM = 22;
const STEPS = [1, 2, 2.5, 5, 10];
const TIMES = [5, 10, 30, 60, 300, 600, 900, 1800, 3600];

// Round values from 0 to at least `top`, about `wanted` of them.
export function ticks(top, wanted = 4) {
  const rough = Math.max(top, 1e-9) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = STEPS.find((one) => one * power >= rough * 0.999) * power;
  return Array.from({ length: Math.ceil(top / step - 1e-9) + 1 }, (_, i) => Number((i * step).toPrecision(12)));
}

// Round times between two moments in seconds.
export function times(from, to, wanted) {
  const step = TIMES.find((one) => (to - from) / one <= wanted) || 7200;
  const first = Math.ceil(from / step) * step;
  return Array.from({ length: Math.max(Math.floor((to - first) / step) + 1, 0) }, (_, i) => first + i * step);
}

// A picture as wide as its place, with a cursor that steps through the positions that `places(width)` gives.
class Chart extends Component {
  constructor() {
    super();
    this.state = { width: 600, cursor: null };
  }

  componentDidMount() {
    this.observer = new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width && width !== this.state.width) this.setState({ width });
    });
    this.watch();
  }

  componentDidUpdate() { this.watch(); }

  componentWillUnmount() { this.observer.disconnect(); }

  // The picture is not there from the beginning where there are no figures yet.
  watch() {
    if (this.plot === this.watched) return;
    this.observer.disconnect();
    if (this.plot) this.observer.observe(this.plot);
    this.watched = this.plot;
  }

  point(event) {
    const x = event.clientX - event.currentTarget.getBoundingClientRect().left;
    const places = this.places(this.state.width);
    let cursor = 0;
    places.forEach((place, index) => { if (Math.abs(place - x) < Math.abs(places[cursor] - x)) cursor = index; });
    this.setState({ cursor: places.length ? cursor : null });
  }

  key(event) {
    const last = this.places(this.state.width).length - 1;
    const { cursor } = this.state;
    const next = { ArrowLeft: Math.max((cursor ?? last + 1) - 1, 0), ArrowRight: Math.min((cursor ?? -1) + 1, last), Home: 0, End: last, Escape: null }[event.key];
    if (next === undefined || last < 0) return;
    event.preventDefault();
    this.setState({ cursor: next });
  }

  frame(label, height, content, rows, columns) {
    const { width, cursor } = this.state;
    const places = this.places(width);
    const at = cursor === null || cursor >= places.length ? null : cursor;
    return html`<figure class="chart">
      <div class="plot" ref=${(node) => { this.plot = node; }} role="group" tabindex="0" aria-label="${label} The arrow keys step through it." onpointermove=${(event) => this.point(event)}
        onpointerleave=${() => this.setState({ cursor: null })} onkeydown=${(event) => this.key(event)} onblur=${() => this.setState({ cursor: null })}>
        <svg viewBox="0 0 ${width} ${height}" width=${width} height=${height} aria-hidden="true">${content}
          ${at !== null && html`<line class="cursor" x1=${places[at]} x2=${places[at]} y1="4" y2=${height - BOTTOM} />`}</svg>
        <div class="tip" role="status" hidden=${at === null} style=${at === null ? {} : places[at] > width / 2 ? { right: `${width - places[at] + 10}px` } : { left: `${places[at] + 10}px` }}>
          ${at !== null && html`<strong>${rows[at][0]}</strong>${columns.slice(1).map((name, i) => rows[at][i + 1] === null ? null : html`<span>${name}: ${rows[at][i + 1]}</span>`)}`}
        </div>
      </div>
      <details><summary>As a table</summary><div class="scroll" tabindex="0" role="region" aria-label="Figures of the chart"><table class="plain"><thead><tr>${columns.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
        <tbody>${rows.map(([head, ...cells]) => html`<tr><th scope="row">${head}</th>${cells.map((cell) => html`<td class="num">${cell ?? '–'}</td>`)}</tr>`)}</tbody></table></div></details>
    </figure>`;
  }
}

function grid(values, y, width, format) {
  return values.map((value) => html`<line class="grid" x1=${LEFT} x2=${width} y1=${y(value)} y2=${y(value)} /><text x=${LEFT - 6} y=${y(value) + 4} text-anchor="end">${format(value)}</text>`);
}

function timeAxis(from, to, x, width, height) {
  const marks = times(from, to, Math.max(Math.floor(width / 110), 2));
  const digits = marks.length > 1 && marks[1] - marks[0] < 60 ? 8 : 5;
  return marks.map((at) => html`<line class="grid" x1=${x(at)} x2=${x(at)} y1=${height - BOTTOM} y2=${height - BOTTOM + 4} />
    <text x=${Math.min(Math.max(x(at), LEFT), width - digits * 3.5)} y=${height - 5} text-anchor="middle">${clock(at).slice(0, digits)}</text>`);
}

// p99 (solid) and median (dashed) of each version over time.
export class Latencies extends Chart {
  moments() { return [...new Set(this.props.history.map((tick) => tick.at))].sort((a, b) => a - b); }

  scale(width) {
    const { history, now } = this.props;
    const from = Math.min(...history.map((tick) => tick.at - tick.seconds), now - 120);
    return { from, x: (at) => LEFT + ((at - from) / (now - from || 1)) * (width - LEFT - 8) };
  }

  places(width) { const { x } = this.scale(width); return this.moments().map(x); }

  render({ history, names, now, limit }, { width }) {
    if (!history.length) return html`<p class="soft">No requests in the last hour. The picture begins a few seconds after the first one.</p>`;
    const height = 220;
    const floor = height - BOTTOM;
    const { from, x } = this.scale(width);
    const values = ticks(Math.max(...history.map((tick) => tick.p99_ms || 0), limit || 0, 1));
    const y = (value) => floor - (value / values.at(-1)) * (floor - 8);
    const path = (points, field) => points.map((tick, i) => `${i && tick.at - points[i - 1].at <= 150 ? 'L' : 'M'} ${x(tick.at).toFixed(1)} ${y(tick[field]).toFixed(1)}`).join(' ');
    const lines = names.map((name, index) => {
      const points = history.filter((tick) => tick.version === name && tick.p99_ms !== null);
      return html`<g class="c${index % 6} curve"><path d=${path(points, 'p99_ms')} /><path class="p50" d=${path(points, 'p50_ms')} />${points.length < 3 && points.map((tick) => html`<circle cx=${x(tick.at)} cy=${y(tick.p99_ms)} r="3" />`)}</g>`;
    });
    const columns = ['Until (UTC)', ...names.flatMap((name) => [`${name} p99`, `${name} p50`, `${name} requests`])];
    const rows = this.moments().map((at) => [clock(at), ...names.flatMap((name) => {
      const tick = history.find((one) => one.at === at && one.version === name);
      return tick ? [ms(tick.p99_ms), ms(tick.p50_ms), count(tick.requests)] : [null, null, null];
    })]);
    const content = html`${grid(values, y, width, axisMs)}${timeAxis(from, now, x, width, height)}
      ${limit && html`<line class="limit" x1=${LEFT} x2=${width} y1=${y(limit)} y2=${y(limit)} /><text class="limit" x=${LEFT + 4} y=${y(limit) - 4}>objective ${axisMs(limit)}</text>`}${lines}`;
    return this.frame('Latency by version over the last hour: 99th percentile solid, median dashed.', height, content, rows, columns);
  }
}

// One row of bars for each version over one axis of time, so that a slow one stands out by its place.
export class Distribution extends Chart {
  span() {
    const { bounds, versions } = this.props;
    const used = [...bounds, Infinity].map((_, i) => versions.some((one) => one.buckets[i] > 0));
    const first = Math.max(used.indexOf(true) - 1, 0);
    return { empty: !used.includes(true), first, columns: Math.min(used.lastIndexOf(true) + 1, bounds.length) - first + 1 };
  }

  places(width) {
    const { first, columns, empty } = this.span();
    return empty ? [] : Array.from({ length: columns }, (_, i) => LEFT + ((i + 0.5) * (width - LEFT - 8)) / columns).slice(0, this.props.bounds.length + 1 - first);
  }

  render({ bounds, versions }, { width }) {
    const { empty, first, columns } = this.span();
    if (empty) return html`<p class="soft">No requests in the last hour.</p>`;
    const row = 58;
    const height = versions.length * row + BOTTOM;
    const step = (width - LEFT - 8) / columns;
    const bars = versions.map(({ version, buckets }, index) => {
      const shown = buckets.slice(first, first + columns);
      const top = Math.max(...shown, 1);
      const floor = (index + 1) * row;
      return html`<g class="c${index % 6}"><line class="grid" x1=${LEFT} x2=${width - 8} y1=${floor} y2=${floor} /><text x=${LEFT - 6} y=${floor - 4} text-anchor="end">${version.slice(0, 8)}</text>
        ${shown.map((value, i) => {
          const size = Math.max(3, (value / top) * (row - 22));
          return value ? html`<rect x=${LEFT + i * step + 1} width=${Math.max(step - 2, 1)} y=${floor - size} height=${size} rx="2" />${step > 30 && html`<text x=${LEFT + (i + 0.5) * step} y=${floor - size - 4} text-anchor="middle">${count(value)}</text>`}` : null;
        })}</g>`;
    });
    const every = Math.ceil(columns / Math.max(Math.floor((width - LEFT) / 62), 2));
    const labels = bounds.slice(first, first + columns).map((bound, i) => i % every === 0 ? html`<text x=${Math.min(LEFT + (i + 1) * step, width - 24)} y=${height - 5} text-anchor="middle">${axisMs(bound)}</text>` : null);
    const range = (i) => i === 0 ? `up to ${axisMs(bounds[0])}` : i >= bounds.length ? `over ${axisMs(bounds.at(-1))}` : `${axisMs(bounds[i - 1])} to ${axisMs(bounds[i])}`;
    const sums = versions.map(({ buckets }) => buckets.reduce((a, b) => a + b, 0) || 1);
    const rows = this.places(width).map((_, i) => [range(first + i), ...versions.map(({ buckets }, v) => `${count(buckets[first + i] || 0)} (${percent((buckets[first + i] || 0) / sums[v])})`)]);
    return this.frame('Distribution of latency in the last hour, a row of bars for each version.', height, html`${bars}${labels}`, rows, ['Latency', ...versions.map(({ version }) => `version ${version}`)]);
  }
}

// Requests of each minute, and those that failed on our or a backend's side.
export class Traffic extends Chart {
  places(width) { const { curve, now } = this.props; return curve.map(([at]) => this.x(at - 30, now, width)); }

  x(at, now, width) { const end = Math.ceil(now / 60) * 60; return LEFT + ((at - end + 3600) / 3600) * (width - LEFT - 8); }

  render({ curve, now }, { width }) {
    const height = 150;
    const floor = height - BOTTOM;
    const end = Math.ceil(now / 60) * 60;
    const values = ticks(Math.max(...curve.map(([, requests]) => requests), 1), 3).filter(Number.isInteger);
    const y = (value) => floor - (value / values.at(-1)) * (floor - 8);
    const size = Math.max((width - LEFT) / 60 - 1.5, 1.5);
    const bars = curve.map(([at, requests, failed]) => html`<rect class="c0" x=${this.x(at - 60, now, width)} width=${size} y=${y(requests)} height=${floor - y(requests)} rx="1" />
      ${failed > 0 && html`<rect class="failed" x=${this.x(at - 60, now, width)} width=${size} y=${Math.min(y(failed), floor - 3)} height=${Math.max(floor - y(failed), 3)} rx="1" />`}`);
    const rows = curve.map(([at, requests, failed]) => [`${clock(at - 60).slice(0, 5)} to ${clock(at).slice(0, 5)}`, count(requests), count(failed)]);
    const total = curve.reduce((sum, [, requests]) => sum + requests, 0);
    const bad = curve.reduce((sum, [, , failed]) => sum + failed, 0);
    const content = html`${grid(values, y, width, count)}${timeAxis(end - 3600, end, (at) => this.x(at, now, width), width, height)}${bars}`;
    return this.frame(`Requests by minute: ${plural(total, 'request')} in the last hour, ${count(bad)} failed.`, height, content, rows, ['Minute (UTC)', 'Requests', 'Failed']);
  }
}

// A very small one, for a row of a table.
export function Spark({ curve, now, label }) {
  const top = Math.max(1, ...curve.map(([, requests]) => requests));
  const x = (at) => 60 - (now - at) / 60;
  const total = curve.reduce((sum, [, requests]) => sum + requests, 0);
  const bad = curve.reduce((sum, [, , failed]) => sum + failed, 0);
  return html`<svg class="spark" viewBox="0 0 61 32" preserveAspectRatio="none" role="img" aria-label="${label}: ${plural(total, 'request')} in the last hour, ${count(bad)} failed">
    <line class="grid" x1="0" x2="61" y1="31" y2="31" />
    ${curve.map(([at, requests, failed]) => html`<rect class="c0" x=${x(at).toFixed(2)} width="0.8" y=${30 - (requests / top) * 28} height=${(requests / top) * 28} />
      ${failed > 0 && html`<rect class="failed" x=${x(at).toFixed(2)} width="0.8" y=${30 - Math.max((failed / top) * 28, 3)} height=${Math.max((failed / top) * 28, 3)} />`}`)}</svg>`;
}

export function Legend({ names }) {
  return html`<ul class="legend">${names.map((name, index) => html`<li><span class="swatch c${index % 6}"></span>version ${name}</li>`)}</ul>`;
}
