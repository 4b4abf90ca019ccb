// The console: says which page is shown, keeps it fresh, asks for a key where one is needed, and says so when the gateway is away.
import { Component, Skip, html, render } from './ui.js';
import { Away, Refused, hasKey, signIn } from './api.js';
import { clock, duration, moment } from './format.js';
import { WINDOWS, having, href, kept, parse, windowOf } from './place.js';
import * as callers from './callers.js';
import * as changes from './changes.js';
import * as model from './model.js';
import * as models from './models.js';
import * as now from './now.js';
import * as request from './request.js';
import * as requests from './requests.js';

const PAGES = { '': now, models, model, requests, request, changes, callers };
const TITLES = { '': 'Now', models: 'Models', requests: 'Requests', changes: 'Changes', callers: 'Callers' };
const PARENTS = { model: 'models', request: 'requests' };
const WINDOWED = ['', 'models', 'model'];
const SHORT = { '10s': '10 s', '1m': '1 min', '1h': '1 h' };
const AGAIN_MS = 2000;
const TYPING_MS = 250;

const seen = { place: parse(location.hash), data: null, at: 0, away: null, refused: null };
let timer = 0;
let asked = 0;

function page() { return PAGES[seen.place.page] || now; }

// Load what the page shows; an answer that is overtaken by another question is dropped.
async function refresh() {
  clearTimeout(timer);
  asked += 1;
  const mine = asked;
  const { place } = seen;
  try {
    const data = await page().load(place, seen.data);
    if (mine !== asked) return;
    Object.assign(seen, { data, at: Date.now(), away: null, refused: null });
  } catch (error) {
    if (mine !== asked) return;
    if (error instanceof Away) seen.away = seen.away || { since: Date.now() };
    else if (error instanceof Refused) Object.assign(seen, { refused: error, away: null });
    else throw error;
  }
  draw();
  const { every } = page();
  const wait = seen.away ? AGAIN_MS : seen.refused && seen.refused.status < 500 ? 0 : every || (seen.refused ? AGAIN_MS : 0);
  if (wait) timer = setTimeout(() => (document.hidden ? null : refresh()), wait);
}

// Change parameters of the address while somebody types; the question follows when they pause.
// They are changed in the address itself: that of a link followed a moment ago is not in `seen` yet.
function change(parameters) {
  history.replaceState(null, '', having(parse(location.hash), parameters));
  seen.place = parse(location.hash);
  draw();
  clearTimeout(timer);
  timer = setTimeout(refresh, TYPING_MS);
}

function draw() {
  const { place, refused } = seen;
  document.title = `${place.name || TITLES[place.page] || 'Now'} – CHIPS console`;
  render(html`<${App} ...${seen} />`, document.getElementById('console'));
  document.body.dataset.state = seen.away ? 'away' : refused ? 'refused' : seen.data ? 'shown' : 'loading';
}

function App({ place, data, at, away, refused }) {
  if (refused && [401, 403].includes(refused.status)) return html`<${Skip} /><header class="top"><${Brand} /></header><main id="main" tabindex="-1"><${Login} refused=${refused} /></main>`;
  const current = PARENTS[place.page] || (TITLES[place.page] ? place.page : '');
  return html`<${Skip} />
    <header class="top"><${Brand} />
      <nav aria-label="Console">${Object.entries(TITLES).map(([where, label]) => html`<a href=${href(where, '', WINDOWED.includes(where) ? kept(place) : {})} aria-current=${where === current ? 'page' : null}>${label}</a>`)}</nav>
      <div class="state">${WINDOWED.includes(place.page) && html`<${WindowChoice} place=${place} />`}
        <span id="live">${away ? 'not connected' : at ? html`<span class="dot ok"></span> as of ${clock(at / 1000)} UTC` : ''}</span>
        ${hasKey() && html`<button type="button" class="copy" onclick=${() => { signIn(''); location.reload(); }}>Sign out</button>`}</div>
    </header>
    ${away && html`<div class="banner" role="alert"><strong>The gateway does not answer</strong> since ${clock(away.since / 1000)} UTC. ${data ? html`Everything below is from ${moment(at / 1000)} UTC, ${duration((Date.now() - at) / 1000)} ago.` : ''} This page tries again by itself.</div>`}
    <main id="main" tabindex="-1" class=${away && data ? 'stale' : ''}>
      ${refused && html`<h1>${TITLES[current]}</h1><p class="note bad" role="alert">${refused.message}</p>`}
      ${!refused && (data ? (PAGES[place.page] || now).page(place, data, change) : html`<h1>${place.name || TITLES[current]}</h1><p class="soft">${away ? 'There is nothing to show yet.' : 'Loading…'}</p>`)}
    </main>`;
}

function Brand() { return html`<a class="brand" href="#/"><img src="/-/console/icon.svg" alt="" width="22" height="22" /> CHIPS</a>`; }

function WindowChoice({ place }) {
  return html`<div class="choice" role="group" aria-label="Figures of the last">${Object.entries(WINDOWS).map(([name, words]) => html`<a href=${having(place, { window: name === '1m' ? '' : name })} aria-current=${name === windowOf(place) ? 'true' : null} aria-label=${words}>${SHORT[name]}</a>`)}</div>`;
}

class Login extends Component {
  render({ refused }) {
    return html`<form class="card login" id="login" onsubmit=${(event) => { event.preventDefault(); signIn(event.currentTarget.elements.key.value); refresh(); }}>
      <h1>Sign in to the console</h1>
      ${hasKey() ? html`<p class="error" role="alert">${refused.message}</p>` : html`<p class="sub">Enter an API key that may operate this gateway.</p>`}
      <label class="field">API key<input type="password" id="key" name="key" autocomplete="off" required spellcheck="false" /></label>
      <p class="bar"><button class="main" type="submit">Sign in</button></p>
      <p class="soft">It stays in this tab until you close it. An operator makes one with <code>chips keys create LABEL --verbs operate</code>.</p>
    </form>`;
  }
}

addEventListener('hashchange', () => {
  const before = seen.place;
  seen.place = parse(location.hash);
  const moved = before.page !== seen.place.page || before.name !== seen.place.name;
  if (moved) Object.assign(seen, { data: null, refused: seen.refused && [401, 403].includes(seen.refused.status) ? seen.refused : null });
  draw();
  refresh();
  if (moved) { document.getElementById('main').focus({ preventScroll: true }); scrollTo(0, 0); }
});
document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
setInterval(() => { if (seen.away) draw(); }, 1000);
draw();
refresh();
