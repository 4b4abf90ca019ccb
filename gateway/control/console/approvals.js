// What waits for somebody's decision? All requests for approval, the newest first.
import { Command, Pill, html } from './ui.js';
import { read } from './api.js';
import { href } from './place.js';

export const every = 15000;
export const STATES = { approved: ['ok', 'approved'], open: ['warn', 'open'], rejected: ['bad', 'rejected'], unreadable: ['bad', 'unreadable'] };

export function load() { return read('/-/approvals'); }

export function when(text) { return text ? `${text.slice(0, 19).replace('T', ' ')} UTC` : 'at an unknown time'; }

export function State({ one }) {
  const [mood, words] = STATES[one.state];
  return html`<${Pill} mood=${mood}>${words}<//>${one.emergency_by && html` <${Pill} mood="bad">emergency<//>`}`;
}

export function page(place, { policy, requests, more }) {
  return html`
    <div class="head"><div><h1>Approvals</h1><p class="sub">Requests to let a version, or another sign-off policy, into this environment. Each binds digests, and ends when anything of it changes.</p></div></div>
    ${!policy && html`<section class="card"><h2>This environment asks for no approvals</h2><${Command} label="Write a sign-off policy" text="chips sign-off set sign-off.toml" /></section>`}
    ${policy && !requests.length && html`<section class="card"><h2>Nobody has asked for an approval</h2><${Command} label="Ask for one" text="chips request-approval MODEL@VERSION --from ENV --to ENV --ssh-key FILE" /></section>`}
    ${requests.map((one) => html`<article key=${one.id} class="card change request">
      <h2><a href=${href('approval', one.id)}>${one.title}</a> <${State} one=${one} /> ${one.reason && html`<span class="reason">“${one.reason}”</span>`}</h2>
      <p class="soft">${one.requested_by ? `Asked for by ${one.requested_by}, ${when(one.requested_at)}.` : 'Nobody whom the sign-off policy knows has asked for it.'}</p>
      ${one.approved_by && one.approved_by.length > 0 && html`<p>Approved by ${one.approved_by.join(', ')}; holds until ${when(one.expires)}.</p>`}
      ${one.problems.map((text) => html`<p>${text[0].toUpperCase() + text.slice(1)}.</p>`)}
    </article>`)}
    ${more && html`<p class="soft">Older ones: <code>chips approvals</code>.</p>`}`;
}
