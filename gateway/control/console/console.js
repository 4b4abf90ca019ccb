// The console: says which page is shown, keeps it fresh, asks for a key where one is needed, and says so when the gateway is away.
import { Component, Skip, html, render } from './ui.js';
import { Away, Refused, hasKey, read, signIn } from './api.js';
import { when } from './approvals.js';
import { clock, duration, moment } from './format.js';
import { WINDOWS, having, href, kept, parse, windowOf } from './place.js';
import * as approval from './approval.js';
import * as approvals from './approvals.js';
import * as callers from './callers.js';
import * as changes from './changes.js';
import * as model from './model.js';
import * as models from './models.js';
import * as now from './now.js';
import * as request from './request.js';
import * as requests from './requests.js';

const PAGES = { '': now, models, model, requests, request, changes, approvals, approval, callers };
const TITLES = { '': 'Now', models: 'Models', requests: 'Requests', changes: 'Changes', approvals: 'Approvals', callers: 'Callers' };
const PARENTS = { model: 'models', request: 'requests', approval: 'approvals' };
const WINDOWED = ['', 'models', 'model'];
const SHORT = { '10s': '10 s', '1m': '1 min', '1h': '1 h' };
const AGAIN_MS = 2000;
const TYPING_MS = 250;
const BANNER_MS = 10000;

const seen = { place: parse(location.hash), data: null, at: 0, away: null, refused: null, emergencies: [], back: null };
let timer = 0;
let asked = 0;
let bannerRead = 0;

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
    await readEmergencies();
    if (mine !== asked) return;
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

// What serves on one person's word is shown on every page. Where it cannot be read, what was known stays.
async function readEmergencies() {
  if (Date.now() - bannerRead < BANNER_MS) return;
  try {
    seen.emergencies = (await read('/-/emergencies')).emergencies;
    bannerRead = Date.now();
  } catch { /* the page itself says when the gateway is away */ }
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

function App({ place, data, at, away, refused, emergencies, back }) {
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
    ${emergencies.map((one) => html`<${Emergency} key=${one.id || one.title} one=${one} />`)}
    <main id="main" tabindex="-1" class=${away && data ? 'stale' : ''}>
      ${back && html`<p class="note ${back.failed ? 'bad' : ''}" role=${back.failed ? 'alert' : 'status'} id="came-back">${back.failed || back.said}</p>`}
      ${refused && html`<h1>${TITLES[current]}</h1><p class="note bad" role="alert">${refused.message}</p>`}
      ${!refused && (data ? (PAGES[place.page] || now).page(place, data, change, refresh) : html`<h1>${place.name || TITLES[current]}</h1><p class="soft">${away ? 'There is nothing to show yet.' : 'Loading…'}</p>`)}
    </main>`;
}

function Brand() { return html`<a class="brand" href="#/"><img src="/-/console/icon.svg" alt="" width="22" height="22" /> CHIPS</a>`; }

function Emergency({ one }) {
  return html`<div class="banner emergency" role="alert"><strong>Emergency:</strong> ${one.by ? html`<a href=${href('approval', one.id)}>${one.title}</a> serves on the word of ${one.by} alone since ${when(one.at)}${one.reason && html` (“${one.reason}”)`}. ${one.overdue ? html`<strong>A review was due by ${when(one.review_due)}.</strong>` : `A review is due by ${when(one.review_due)}.`}` : one.title}</div>`;
}

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
  if (moved) Object.assign(seen, { data: null, back: null, refused: seen.refused && [401, 403].includes(seen.refused.status) ? seen.refused : null });
  draw();
  refresh();
  if (moved) { document.getElementById('main').focus({ preventScroll: true }); scrollTo(0, 0); }
});
document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
setInterval(() => { if (seen.away) draw(); }, 1000);

// The token goes out of the address before anything else happens.
async function begin() {
  const { hash } = location;
  if (/[#&](id_token|error)=/.test(hash)) {
    history.replaceState(null, '', location.pathname);
    const back = await approval.cameBack(hash);
    history.replaceState(null, '', back.id ? href('approval', back.id) : href('approvals'));
    Object.assign(seen, { place: parse(location.hash), back });
  }
  draw();
  refresh();
}
begin();
