// Who calls, by name, and what it costs the backends.
import { Command, Table, html } from './ui.js';
import { read } from './api.js';
import { chips } from './commands.js';
import { count, moment, percent, plural } from './format.js';
import { href } from './place.js';

export const every = 5000;
const KEY = /^[0-9a-f]{12}$/; // the id of an API key; others come with a token or a certificate

export function load() { return read('/-/callers'); }

export function page(place, { callers, started }, change) {
  const wanted = (place.query.find || '').toLowerCase();
  const found = callers.filter((one) => `${one.label} ${one.caller} ${Object.keys(one.models).join(' ')}`.toLowerCase().includes(wanted));
  const total = callers.reduce((sum, usage) => sum + usage.backend_s, 0) || 1;
  return html`
    <div class="head"><div><h1>Callers</h1><p class="sub">Requests, and the backends’ time that they used, since ${moment(started)} UTC, when this gateway started.</p></div></div>
    <section class="card flush">
      <form class="filters" role="search" onsubmit=${(event) => event.preventDefault()}><label class="field grow">Find<input type="search" id="find" value=${place.query.find || ''} placeholder="name, id or model" autocomplete="off" oninput=${(event) => change({ find: event.target.value })} /></label><span class="soft" role="status">${plural(found.length, 'caller')}</span></form>
      ${found.length ? html`<${Table} caption="Callers by the backend time they used" columns=${[['Caller'], ['Requests', 'num'], ['Backend time', 'num'], ['Share', 'num'], ['Models']]}>${found.slice(0, 100).map((usage) => html`<tr key=${usage.caller}>
        <th scope="row" class="name">${usage.label || usage.caller}<small>${usage.caller}</small></th>
        <td class="num" data-label="Requests"><a href=${href('requests', '', { caller: usage.caller })}>${count(usage.requests)}</a></td>
        <td class="num" data-label="Backend time">${usage.backend_s.toFixed(2)} s</td>
        <td class="num" data-label="Share">${percent(usage.backend_s / total)}</td>
        <td class="wide" data-label="Models">${Object.entries(usage.models).slice(0, 6).map(([model, part], i) => html`${i > 0 && ', '}<a href=${href('model', model)}>${model}</a> (${count(part.requests)})`)}
          ${KEY.test(usage.caller) && html`<details><summary>Its key</summary><div class="commands"><${Command} label="Replace it: the old one ends a day later" text=${chips('keys', 'rotate', usage.caller)} /><${Command} label="End it at once, at every gateway" text=${chips('keys', 'revoke', usage.caller)} /></div></details>`}</td></tr>`)}<//>`
        : html`<p class="pad soft">${callers.length ? 'No caller has that in its name, id or models.' : 'Nobody has called a model yet.'}</p>`}
    </section>
    <div class="commands"><${Command} label="All keys, with what they may do" text=${chips('keys', 'list')} /></div>`;
}
