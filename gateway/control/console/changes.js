// What changed? Who, when, why, what exactly, and the command that takes it back.
import { Command, Pill, html } from './ui.js';
import { read } from './api.js';
import { undo } from './commands.js';
import { plural } from './format.js';
import { having, href } from './place.js';

export const every = 5000;
const STEP = 50;
const OF_MODELS = { models: 'model', rollouts: 'rollout of', shadows: 'shadow of' };
const KINDS = { '': 'Everything', models: 'Models', rollouts: 'Rollouts', shadows: 'Shadows', networks: 'Networks', keys: 'Keys', revocations: 'Revoked keys' };
const ACTIONS = { create: 'Created', update: 'Changed', delete: 'Removed' };

export function load({ query }) {
  const asked = new URLSearchParams({ limit: query.limit || STEP });
  if (query.model) asked.set('model', query.model);
  else if (query.kind) asked.set('kind', query.kind);
  return read(`/-/history?${asked}`);
}

export function page(place, { changes, more }, change) {
  const { query } = place;
  return html`
    <div class="head"><div><h1>Changes</h1><p class="sub">Of the registry, the newest first. Each can be taken back at a terminal; that is a new change, and nothing is lost.</p></div></div>
    <section class="card flush"><form class="filters" role="search" aria-label="Filter the changes" onsubmit=${(event) => event.preventDefault()}>
      <label class="field">Of<select id="kind" value=${query.kind || ''} disabled=${Boolean(query.model)} onchange=${(event) => change({ kind: event.target.value, limit: '' })}>${Object.entries(KINDS).map(([kind, label]) => html`<option value=${kind}>${label}</option>`)}</select></label>
      <label class="field">Model<input id="of-model" value=${query.model || ''} placeholder="any" autocomplete="off" oninput=${(event) => change({ model: event.target.value.trim(), limit: '' })} /></label>
    </form></section>
    ${changes.length ? changes.map((one) => html`<${Change} key=${`${one.generation} ${one.kind} ${one.name}`} change=${one} />`) : html`<p class="card soft">Nothing has been changed.</p>`}
    ${more && html`<p><a href=${having(place, { limit: Number(query.limit || STEP) + STEP })}>Older changes</a></p>`}`;
}

function Change({ change }) {
  const { kind, name, label, network, action, at, author, reason, generation, revision, differences } = change;
  const back = undo(change);
  const shownDifferences = kind === 'rollouts' ? differences.filter((one) => /^(state|traffic\.)/.test(one.path)) : differences;
  const what = OF_MODELS[kind] ? html`${OF_MODELS[kind]} <a href=${href('model', name)}>${name}</a>` : kind === 'networks' ? `network ${network || name}` : kind === 'keys' ? `key ${name}${label && ` “${label}”`}` : `key ${name}`;
  return html`<article class="card change">
    <h2>${kind === 'revocations' ? 'Revoked' : ACTIONS[action]} ${what} ${reason && html`<span class="reason">“${reason}”</span>`}</h2>
    <p class="soft">${at.slice(0, 19).replace('T', ' ')} UTC, by ${author || 'somebody'}. Generation ${generation}${kind === 'models' && `, revision ${revision}`}.</p>
    ${action === 'update' && shownDifferences.length > 0 && html`<dl class="differences">${shownDifferences.map((one) => html`<dt>${pathWords(one.path)}</dt><dd><${Difference} ...${one} /></dd>`)}</dl>`}
    ${action !== 'update' && kind === 'models' && html`<details><summary>${plural(differences.length, 'field')}</summary><dl class="differences">${differences.map((one) => html`<dt>${pathWords(one.path)}</dt><dd>${shown(action === 'create' ? one.after : one.before)}</dd>`)}</dl></details>`}
    ${back ? html`<${Command} label="Take it back" text=${back} />` : kind === 'revocations' && html`<p class="soft">A revoked key stays revoked. <code>chips keys create</code> makes another one.</p>`}
  </article>`;
}

export function Difference({ path, before, after }) {
  const unit = path.startsWith('traffic.') ? ' %' : path.endsWith('_s') ? ' s' : '';
  const part = (value) => value === null ? html`<span class="soft">${unit === ' %' ? '0 %' : 'not set'}</span>` : html`<span>${shown(value)}${unit}</span>`;
  return html`<del>${part(before)}</del> → <ins>${part(after)}</ins>`;
}

export function pathWords(path) {
  const [first, ...rest] = path.split('.');
  return first === 'traffic' ? `traffic to version ${rest.join('.')}` : [first, ...rest].join(' ').replaceAll('_', ' ');
}

function shown(value) {
  if (Array.isArray(value) && value.every((one) => one && typeof one === 'object' && one.name)) return value.map((one) => `${one.name}${one.datatype ? ` ${one.datatype}` : ''}`).join(', ');
  return typeof value === 'string' ? value : JSON.stringify(value);
}
