// The console: one place that says which page is shown, keeps it fresh, and asks for a key where one is needed.
import { Refused, hasKey, read, signIn, watch } from './api.js';
import { fill, h } from './dom.js';
import { callers, history } from './others.js';
import { model, load as loadModel } from './model.js';
import { models } from './models.js';
import { request, load as loadRequest } from './request.js';
import { requests, load as loadRequests } from './requests.js';

const main = document.getElementById('main');
const seen = { board: null, curves: null, openapi: null, live: false, loaded: null, refused: null };
let place = [];
let unwatch = null;

const PAGES = {
  '': { title: 'Models', draw: () => models(seen, redraw), load: null, every: 0 },
  model: { title: 'Model', draw: () => model(place[1], seen.loaded, seen.board, seen.openapi), load: () => loadModel(place[1]), every: 5000 },
  requests: { title: 'Requests', draw: () => requests(seen.loaded, seen.board, refresh), load: () => loadRequests(), every: 4000 },
  request: { title: 'Request', draw: () => request(place[1], seen.loaded), load: () => loadRequest(place[1]), every: 0 },
  callers: { title: 'Callers', draw: () => callers(seen.loaded), load: () => read('/-/callers'), every: 5000 },
  history: { title: 'History', draw: () => history(seen.loaded), load: () => read('/-/history'), every: 15000 },
};

function page() { return PAGES[place[0]] || PAGES['']; }

function redraw() {
  if (seen.refused && [401, 403].includes(seen.refused.status)) { fill(main, [login(seen.refused)]); return; }
  const content = seen.refused ? [h('h1', {}, page().title), h('p.note.bad', { role: 'alert' }, seen.refused.message)] : page().draw().filter(Boolean);
  fill(main, content);
  drawState();
}

function drawState() {
  const { board, live } = seen;
  const registry = board && board.registry;
  fill(document.getElementById('state'), [
    h('span', { class: `dot ${live ? 'ok pulse' : 'bad'}` }), h('span', {}, live ? 'live' : 'not connected'),
    ...(registry ? [h('span', {}, `registry #${registry.generation ?? '–'}`), registry.connected ? null : h('span.pill.bad', {}, 'registry away')].filter(Boolean) : []),
    ...(hasKey() ? [h('button.copy', { type: 'button', onclick: () => { signIn(''); location.reload(); } }, 'Sign out')] : []),
  ]);
  const names = { '': 'Models', requests: 'Requests', callers: 'Callers', history: 'History' };
  const current = { model: '', request: 'requests' }[place[0]] ?? place[0] ?? '';
  fill(document.getElementById('nav'), Object.entries(names).map(([where, label]) => h('a', { href: `#/${where}`, 'aria-current': where === current ? 'page' : null }, label)));
}

function login(refused) {
  const form = h('form.card.login', { id: 'login', 'data-keep': '' },
    h('h1', {}, 'Sign in to the console'),
    h('p.sub', {}, hasKey() ? refused.message : 'Enter an API key that may operate this gateway.'),
    h('label.field', {}, 'API key', h('input', { type: 'password', id: 'key', autocomplete: 'off', required: true, spellcheck: 'false' })),
    h('p', { class: 'bar' }, h('button.main', { type: 'submit' }, 'Sign in')),
    h('p.soft', {}, 'It stays in this tab until you close it. An operator makes one with ', h('code', {}, 'chips keys create LABEL --verbs operate'), '.'));
  form.onsubmit = (event) => { event.preventDefault(); signIn(form.querySelector('#key').value); begin(); };
  const known = document.getElementById('login');
  if (known && hasKey()) known.replaceWith(form);
  return form;
}

async function refresh() {
  const mine = place;
  const { load } = page();
  if (!load) { redraw(); return; }
  try {
    const loaded = await load();
    if (mine !== place) return;
    seen.loaded = loaded;
    seen.refused = null;
  } catch (error) {
    if (mine !== place) return;
    if (error instanceof Refused) seen.refused = error;
  }
  redraw();
}

async function go() {
  place = location.hash.replace(/^#\/?/, '').split('/').map(decodeURIComponent);
  seen.loaded = null;
  if (seen.refused && ![401, 403].includes(seen.refused.status)) seen.refused = null;
  document.title = `${page().title}${place[1] ? ` ${place[1]}` : ''} – CHIPS console`;
  if (place[0] === 'model' && !seen.openapi) seen.openapi = await read('/-/openapi.json').catch(() => null);
  fill(main, []);
  redraw();
  await refresh();
}

async function readCurves() {
  try { seen.curves = await read('/-/curves'); redraw(); } catch { /* the next time */ }
}

function begin() {
  if (unwatch) unwatch();
  seen.refused = null;
  seen.openapi = null;
  unwatch = watch((name, content) => {
    if (name === 'board') seen.board = content;
    if (name === 'board' && ['', 'model', undefined].includes(place[0])) redraw();
    else if (name === 'board') drawState();
    if (name === 'requests' && place[0] === 'requests') refresh();
  }, (live, refused) => { seen.live = live; if (refused) { seen.refused = refused; redraw(); } else drawState(); });
  readCurves();
  go();
}

setInterval(() => { if (seen.live && place[0] === '') readCurves(); }, 15000);
(function tick(waited) {
  const { every } = page();
  if (every && waited >= every && !document.hidden && seen.live) { refresh(); waited = 0; }
  setTimeout(tick, 1000, waited + 1000);
})(0);
addEventListener('hashchange', () => { go(); main.focus({ preventScroll: true }); scrollTo(0, 0); });
begin();
