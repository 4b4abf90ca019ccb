// One thing that is wrong: what, whose, since when, what shows it, and the command that helps.
import { Command, Pill, html } from './ui.js';
import { chips, traffic, undo } from './commands.js';
import { SIDES, axisMs, code, count, duration, moment, ms, percent, plural } from './format.js';
import { WINDOWS, href } from './place.js';

const BEFORE_S = 15 * 60; // a change that is older had its time to show what it does
const ABOUT_S = 15;

function title({ kind, model, version, side, share }) {
  const name = model ? `${model}@${version}` : '';
  if (kind === 'unreachable') return `${name} cannot be reached`;
  if (kind === 'failing') return side === 'gateway' ? `The gateway fails requests${name ? ` to ${name}` : ''}` : `${name} answers with errors`;
  if (kind === 'late') return share < 0.5 ? `${name} is sometimes too slow` : `${name} is too slow`;
  if (kind === 'slower') return `${name} is slower than the other versions`;
  return `${name}: requests of callers are refused`;
}

function facts(issue, window) {
  const of = `of ${plural(issue.requests, 'request')} in the last ${WINDOWS[window]}`;
  if (issue.kind === 'late') return `${percent(issue.share)} ${of} took longer than the objective of ${axisMs(issue.limit_ms)}. Its median is ${ms(issue.p50_ms)}${issue.others_ms ? `, that of the other versions at most ${ms(issue.others_ms)}` : ''}.`;
  if (issue.kind === 'slower') return `Its median is ${ms(issue.p50_ms)} ${of}, that of the other versions at most ${ms(issue.others_ms)}.`;
  return `${percent(issue.share)} ${of} ${issue.kind === 'refused' ? 'were refused' : 'failed'}: ${Object.entries(issue.codes).map(([name, n]) => `${code(name)}${Object.keys(issue.codes).length > 1 ? ` ${count(n)}` : ''}`).join(', ')}.`;
}

function nowWords({ share_now, kind }) {
  if (kind === 'slower') return '';
  if (share_now === null) return ' In the last 10 seconds nobody called it.';
  return share_now ? ` In the last 10 seconds: ${percent(share_now)}.` : ' In the last 10 seconds it was fine.';
}

// Whether a difference can have done something to a version: less traffic harms none.
function concerns({ path, before, after }, version) {
  return path.startsWith(`version ${version}: `) || path.startsWith('policy') || (path === `traffic.${version}` && (after ?? 0) > (before ?? 0));
}

// The change of this model that was made shortly before it began.
function cause(issue, changes) {
  if (!issue.since || !issue.model) return null;
  return (changes || []).find(({ kind, name, at, action, differences }) => {
    const ago = issue.since - Date.parse(at) / 1000;
    return kind === 'models' && action === 'update' && name === issue.model && ago < BEFORE_S && ago > -ABOUT_S && differences.some((one) => concerns(one, issue.version));
  }) || null;
}

export function Issue({ issue, window, at, changes }) {
  const { kind, side, model, version, since, owner } = issue;
  const change = cause(issue, changes);
  const takeBack = change && undo(change);
  const slow = kind === 'late' || kind === 'slower';
  const evidence = slow ? { kind: 'slowest', model, version } : { model, version, side };
  return html`<article class="issue card ${kind === 'refused' ? 'is-mild' : slow ? 'is-warn' : 'is-bad'}">
    <h2>${model ? html`<a href=${href('model', model)}>${title(issue)}</a>` : title(issue)}</h2>
    <p class="bar"><${Pill} mood=${kind === 'refused' ? '' : slow ? 'warn' : 'bad'}>for ${SIDES[side]} to fix<//>
      ${owner && side === 'backend' && html`<span class="soft">owner ${owner}</span>`}
      ${since && html`<span>${issue.since_at_least ? 'for at least' : 'for'} <strong>${duration(at - since)}</strong> <span class="soft">since ${moment(since)} UTC</span></span>`}</p>
    <p>${facts(issue, window)}${nowWords(issue)}</p>
    ${change && html`<p>About the time it began, ${change.author || 'somebody'} changed the model${change.reason ? html`: “${change.reason}”` : ''} <span class="soft">(${change.at.slice(0, 19).replace('T', ' ')} UTC)</span>. <a href=${href('changes', '', { model })}>What changed</a></p>`}
    <p><a href=${href('requests', '', evidence)}>${slow ? 'The slowest of these requests' : 'These requests'}</a></p>
    ${side !== 'caller' && html`<div class="commands">
      ${takeBack && html`<${Command} label="Go back to the state before that change" text=${takeBack} />`}
      ${side === 'backend' && model && (issue.shift ? html`<${Command} label="Send its traffic to the other versions" text=${traffic(model, issue.shift)} />`
        : !slow && issue.share > 0.5 && html`<${Command} label=${`Take ${model} out of service (no other version can take its traffic)`} text=${chips('disable', model)} />`)}
      ${side === 'backend' && issue.url && !slow && html`<${Command} label="Ask the backend itself" text=${chips('verify', issue.url, '--short')} />`}
      ${side === 'gateway' && html`<${Command} label="Check the gateway and what it depends on" text=${chips('doctor')} />`}
    </div>`}
  </article>`;
}

// What the gateway says of its registry.
export function RegistryIssue({ registry }) {
  const { connected, held, problems, age_s, error, generation } = registry;
  const trouble = generation === null ? ['The registry has not been read yet', 'No model can be called until it has.'] : held ? ['The gateway holds an older state of the registry', held]
    : connected ? null : ['The registry does not answer', `The gateway serves the last state that it read, ${duration(age_s)} ago. Changes do not arrive.`];
  return html`${trouble && html`<article class="issue card ${generation === null ? 'is-bad' : 'is-warn'}"><h2>${trouble[0]}</h2><p class="bar"><${Pill} mood="warn">for the operator to fix<//></p><p>${trouble[1]} ${error && html`<span class="soft">${error}</span>`}</p>
      <div class="commands"><${Command} label="Check it" text=${chips('doctor')} /></div></article>`}
    ${problems.length > 0 && html`<article class="issue card is-warn"><h2>${plural(problems.length, 'document')} of the registry cannot be used</h2><p class="bar"><${Pill} mood="warn">for the operator to fix<//></p><ul>${problems.map((problem) => html`<li>${problem}</li>`)}</ul>
      <div class="commands"><${Command} label="Check them" text=${chips('doctor')} /></div></article>`}`;
}

export function registryIsWell({ connected, held, problems }) { return connected && !held && !problems.length; }
