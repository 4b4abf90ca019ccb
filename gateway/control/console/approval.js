// One request: what would change next to the evidence for it, what a decision binds, who has decided, and how to decide.
import { Command, Component, Facts, Pill, html } from './ui.js';
import { read, send } from './api.js';
import { State, when } from './approvals.js';
import { Difference, pathWords } from './changes.js';
import { chips } from './commands.js';
import { href } from './place.js';

export const every = 15000;
const PENDING = 'chips-decision';
const DONE = { approve: 'approved', reject: 'rejected', review: 'reviewed' };
const KEY = '~/.ssh/id_ed25519';

export function load(place) { return read(`/-/approvals/${encodeURIComponent(place.name)}`); }

export function page(place, one, change, refresh) {
  return html`
    <div class="head"><div><p class="sub"><a href=${href('approvals')}>Approvals</a> /</p><h1>${one.title} <${State} one=${one} /></h1>
      <p class="sub">${one.requested_by ? `Asked for by ${one.requested_by}, ${when(one.requested_at)}` : 'Nobody whom the sign-off policy knows has asked for it'}${one.reason && html`: “${one.reason}”`}</p></div></div>
    <section class="verdict ${one.state === 'approved' ? 'is-ok' : one.state === 'open' ? 'is-warn' : 'is-bad'}" role="status">
      <p>${one.state === 'approved' ? one.emergency_by && !one.approved_by.length ? `It may serve on the word of ${one.emergency_by} alone, until ${when(one.expires)}.` : `It may serve. The approvals hold until ${when(one.expires)}.` : 'It may not serve:'}</p>
      ${one.problems.length > 0 && html`<ul>${one.problems.map((text) => html`<li>${text}</li>`)}</ul>`}
      ${one.review_due && html`<p><strong>Emergency by ${one.emergency_by}: a review is due by ${when(one.review_due)}.</strong></p>`}
    </section>
    ${one.binds && html`
      <div class="columns">
        <section class="card" id="differences"><h2>What would change here</h2><${Changes} one=${one} /></section>
        <section class="card" id="evidence"><h2>The evidence for it</h2><${Evidence} evidence=${one.evidence} /></section>
      </div>
      <div class="columns">
        <section class="card" id="binds"><h2>What a decision binds</h2><${Facts} rows=${one.binds.map(([label, value]) => [label, html`<code>${value}</code>`])} />
          <p class="soft">Exactly this, and nothing else: when any of it changes, all approvals end.</p></section>
        <section class="card" id="decisions"><h2>Who has decided</h2><${Decisions} one=${one} /></section>
      </div>
      <section class="card" id="decide"><h2>Decide</h2><${Decide} one=${one} refresh=${refresh} /></section>`}`;
}

function Changes({ one }) {
  if (one.differences_problem) return html`<p class="note bad">${one.differences_problem}</p>`;
  if (!one.differences.length) return html`<p class="soft">Nothing: it is what serves here now.</p>`;
  return html`<dl class="differences">${one.differences.map((each) => html`<dt>${pathWords(each.path)}</dt><dd><${Difference} ...${each} /></dd>`)}</dl>`;
}

function Evidence({ evidence }) {
  if (!evidence.length) return html`<p class="soft">The sign-off policy asks for none, and none came with the request.</p>`;
  return evidence.map(({ sort, passed, required, summary, requests, too_few_requests, at, problems, sections }) => html`<article class="evidence" key=${sort}>
    <h3>${sort} <${Pill} mood=${problems.length ? 'bad' : passed ? 'ok' : 'bad'}>${problems.length ? 'does not count' : passed ? 'passed' : 'failed'}<//>${!required && html` <span class="soft">not asked for</span>`}</h3>
    ${summary && html`<p>${summary}${at && html` <span class="soft">${when(at)}</span>`}</p>`}
    ${requests && html`<p class=${too_few_requests ? 'warn' : ''}><strong>It ${requests}.</strong></p>`}
    ${problems.map((text) => html`<p class="bad">${text}</p>`)}
    ${sections.length > 0 && html`<details open><summary>The model card, as its author wrote it</summary><${Facts} rows=${sections.map(({ heading, text }) => [heading, html`<span class="written">${text}</span>`])} /></details>`}
  </article>`);
}

function Decisions({ one }) {
  if (!one.decisions.length) return html`<p class="soft">Nobody yet.</p>`;
  return html`<${Facts} rows=${one.decisions.map(({ decision, by, at, reason, why_not }) => [by, html`<${Pill} mood=${why_not ? '' : decision === 'approve' || decision === 'review' ? 'ok' : 'bad'}>${DONE[decision] || decision}<//> <span class="soft">${when(at)}</span>${reason && html` “${reason}”`}${why_not && html`<span class="line warn">does not count: ${why_not}</span>`}`])} />`;
}

// A person signs: at an issuer in the browser, with ssh-keygen, or with chips. The console's own key decides nothing.
class Decide extends Component {
  constructor(props) {
    super(props);
    this.state = { decision: 'approve', by: '', reason: '', made: null, signature: '', said: '', failed: '' };
  }

  set(changed) { this.setState({ made: null, said: '', failed: '', ...changed }); }

  async prepare() {
    const { decision, by, reason } = this.state;
    const back = `${location.origin}/-/console/`;
    try {
      const made = await read(`/-/approvals/${encodeURIComponent(this.props.one.id)}/statement?${new URLSearchParams({ decision, by, reason, back })}`);
      this.setState({ made, failed: '' });
    } catch (error) { this.setState({ made: null, failed: error.message }); }
  }

  signIn() {
    const { made } = this.state;
    sessionStorage.setItem(PENDING, JSON.stringify({ id: this.props.one.id, payload: made.payload, state: made.nonce.split(':').pop() }));
    location.assign(made.sign_in);
  }

  async handIn() {
    const { made, signature } = this.state;
    try {
      const done = await send(`/-/approvals/${encodeURIComponent(this.props.one.id)}`, { payload: made.payload, kind: 'ssh', signature });
      this.set({ said: `${done.by} has ${DONE[done.decision]} it.`, signature: '' });
      this.props.refresh();
    } catch (error) { this.setState({ failed: error.message }); }
  }

  render({ one }, { decision, by, reason, made, signature, said, failed }) {
    const person = one.signers.find((each) => each.name === by);
    const command = decision === 'reject' ? chips('reject', one.id, '--reason', reason || 'WHY') : chips('approve', one.id, ...(decision === 'review' ? ['--review'] : []), ...(reason ? ['--reason', reason] : []));
    return html`
      <form class="fields" onsubmit=${(event) => { event.preventDefault(); this.prepare(); }}>
        <label class="field">You are<select id="by" value=${by} required onchange=${(event) => this.set({ by: event.target.value })}><option value="">choose your name</option>${one.signers.map(({ name, roles, asked }) => html`<option value=${name}>${name} (${roles.join(', ')})${asked ? ', who asked for it' : ''}</option>`)}</select></label>
        <label class="field">You<select id="decision" value=${decision} onchange=${(event) => this.set({ decision: event.target.value })}><option value="approve">approve it</option><option value="reject">reject it</option>${one.emergency_by && html`<option value="review">have reviewed the emergency</option>`}</select></label>
        <label class="field grow">Because${decision !== 'reject' && ' (if you like)'}<input id="reason" value=${reason} required=${decision === 'reject'} maxlength="2000" autocomplete="off" oninput=${(event) => this.set({ reason: event.target.value })} /></label>
        <p class="bar bottom"><button type="submit" class="main">Prepare to sign</button></p>
      </form>
      ${failed && html`<p class="note bad" role="alert">${failed}</p>`}${said && html`<p class="note" role="status">${said}</p>`}
      ${made && html`<div class="ways">
        ${made.sign_in && html`<div><h3>Sign in</h3><p>At the issuer of your identity token, which is made for this decision alone.</p><p><button type="button" class="main" id="sign-in" onclick=${() => this.signIn()}>Sign in and ${decision}</button></p></div>`}
        ${person && person.ssh && html`<div><h3>Sign with your SSH key</h3><${Command} label="1. Sign at a terminal" text=${`printf %s ${made.signed_bytes} | base64 -d | ssh-keygen -Y sign -n chips-approval -f ${KEY}`} />
          <label class="field">2. Paste the signature<textarea id="signature" value=${signature} spellcheck="false" placeholder="-----BEGIN SSH SIGNATURE-----" oninput=${(event) => this.setState({ signature: event.target.value })}></textarea></label>
          <p><button type="button" id="hand-in" disabled=${!signature.trim()} onclick=${() => this.handIn()}>Hand it in</button></p></div>`}
      </div>`}
      <${Command} label="Or all of it with chips, for this environment" text=${`${command} --ssh-key ${KEY}`} />`;
  }
}

// Somebody comes back from an issuer with a token. What did not begin in this tab is dropped.
export async function cameBack(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, ''));
  const pending = JSON.parse(sessionStorage.getItem(PENDING) || 'null');
  sessionStorage.removeItem(PENDING);
  if (!pending || given.get('state') !== pending.state) return { id: '', failed: 'A sign-in ended here that did not begin in this tab. Nothing was decided.' };
  if (!given.get('id_token')) return { id: pending.id, failed: `The sign-in gave no token: ${given.get('error_description') || given.get('error') || 'no reason was given'}. Nothing was decided.` };
  try {
    const done = await send(`/-/approvals/${encodeURIComponent(pending.id)}`, { payload: pending.payload, kind: 'token', signature: given.get('id_token') });
    return { id: pending.id, said: `${done.by} has ${DONE[done.decision]} it.` };
  } catch (error) { return { id: pending.id, failed: error.message }; }
}
