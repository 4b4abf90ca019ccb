// Try a model: a form made from its signature, as the gateway's OpenAPI document gives it.
import { Component, Pill, html } from './ui.js';
import { headers } from './api.js';

const SHOWN = 60; // fields with an input of their own; the body has all of them
const LONGEST = 20000;

const EXACT = 'exact number';
const LONG_NUMBER = /(?<![\w.])-?\d{16,}(?![\w.])/; // JavaScript may change its last digits

function isExact(text) { return !/^-?\d+$/.test(text) || Number.isSafeInteger(Number(text)); }

// JSON, in which a number that JavaScript cannot hold stands as it was typed.
function written(value) {
  const exact = [];
  const text = JSON.stringify(value, (_, one) => one && one[EXACT] ? `\u0001${exact.push(one[EXACT]) - 1}` : one, 2);
  return text.replace(/"\\u0001(\d+)"/g, (_, at) => exact[at]);
}

export class TryIt extends Component {
  constructor(props) {
    super(props);
    const [example = {}] = props.example.instances || [];
    this.state = { values: example, body: JSON.stringify(props.example, null, 2), result: null, busy: false };
  }

  set(field, value) {
    const values = { ...this.state.values, [field]: value };
    this.setState({ values, body: written({ instances: [values] }) });
  }

  async send(event) {
    event.preventDefault();
    this.setState({ busy: true });
    const began = performance.now();
    try {
      const answer = await fetch(`/${encodeURIComponent(this.props.name)}`, { method: 'POST', body: this.state.body, headers: headers({ 'Content-Type': 'application/json', 'X-Chips-Trace': '1' }), redirect: 'error' });
      const content = await answer.text();
      this.setState({ result: { ok: answer.ok, status: answer.status, took: performance.now() - began, content: pretty(content), id: answer.headers.get('X-Request-Id'), refused: answer.headers.get('chips-error') } });
    } catch (error) {
      this.setState({ result: { unreachable: error.message } });
    }
    this.setState({ busy: false });
  }

  render({ name, fields }, { values, body, result, busy }) {
    return html`<form id="try-${name}" class="try" onsubmit=${(event) => this.send(event)}>
      ${Object.keys(fields).length > 0 ? html`<div class="fields">${Object.entries(fields).slice(0, SHOWN).map(([field, schema]) => html`<${Field} key=${field} field=${field} schema=${schema} value=${values[field]} set=${(value) => this.set(field, value)} />`)}</div>`
        : html`<p class="soft">This version lists no inputs, so the body is yours to write.</p>`}
      <label class="field">Body as it is sent<textarea id="try-body" spellcheck="false" value=${body} oninput=${(event) => this.setState({ body: event.target.value })}></textarea></label>
      <p class="bar"><button class="main" type="submit" disabled=${busy}>Send</button></p>
      <div role="status" aria-live="polite">${result && html`<${Result} result=${result} />`}</div>
    </form>`;
  }
}

export function typeOf(schema) { return [].concat(schema.type || 'any').find((one) => one !== 'null'); }

// An input keeps its own text, so that "1." stays what it is while somebody types.
class Field extends Component {
  render({ field, schema, value, set }, { text }) {
    const kind = typeOf(schema);
    const label = html`<span>${field} <small class="soft">${kind}</small></span>`;
    if (kind === 'boolean') return html`<label class="field">${label}<input type="checkbox" checked=${Boolean(value)} onchange=${(event) => set(event.target.checked)} /></label>`;
    const isNumber = kind === 'number' || kind === 'integer';
    const parse = (given) => {
      if (isNumber) return given === '' ? null : isExact(given) ? Number(given) : { [EXACT]: given };
      if (kind === 'string') return given;
      try { return JSON.parse(given); } catch { return value; }
    };
    return html`<label class="field">${label}<input type=${isNumber ? 'number' : 'text'} step=${kind === 'integer' ? '1' : 'any'} value=${text ?? (typeof value === 'object' ? JSON.stringify(value) : value)}
      oninput=${(event) => { this.setState({ text: event.target.value }); set(parse(event.target.value)); }} /></label>`;
  }
}

function Result({ result }) {
  const { unreachable, ok, status, took, content, id, refused } = result;
  if (unreachable) return html`<p class="bad">The gateway does not answer: ${unreachable}</p>`;
  return html`<p><${Pill} mood=${ok ? 'ok' : status >= 500 ? 'bad' : 'warn'}>${status}<//> in ${took.toFixed(1)} ms${refused ? `, refused by the gateway: ${refused}` : ok ? '' : ', from the backend'}${id && html` – <a href="/-/console/#/request/${encodeURIComponent(id)}">where the time went</a> <span class="soft">(for operators)</span>`}</p><pre tabindex="0" role="region" aria-label="Answer">${content}</pre>`;
}

function pretty(text) {
  if (LONG_NUMBER.test(text)) return text.slice(0, LONGEST);
  try { return JSON.stringify(JSON.parse(text), null, 2).slice(0, LONGEST); } catch { return text.slice(0, LONGEST); }
}
