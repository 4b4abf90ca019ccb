// Callers, and what was changed in the registry.
import { h } from './dom.js';
import { count, percent } from './format.js';

export function callers(loaded) {
  const all = loaded ? loaded.callers : [];
  const total = all.reduce((sum, usage) => sum + usage.backend_s, 0) || 1;
  return [h('div.head', {}, h('div', {}, h('h1', {}, 'Callers'), h('p.sub', {}, 'Requests and the backends’ time they used since this gateway started.'))),
    h('section.card.flush', {}, !loaded ? h('p', { class: 'pad soft' }, 'Loading…') : !all.length ? h('p', { class: 'pad soft' }, 'Nobody has called yet.')
      : h('div.scroll', { tabindex: 0, role: 'region', 'aria-label': 'Table of callers' }, h('table.stack', {}, h('caption', {}, 'Callers by the backend time they used'),
        h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Caller'), h('th.num', { scope: 'col' }, 'Requests'), h('th.num', { scope: 'col' }, 'Backend seconds'), h('th.num', { scope: 'col' }, 'Share'), h('th', { scope: 'col' }, 'Models'))),
        h('tbody', {}, all.map((usage) => h('tr', {}, h('th', { scope: 'row', class: 'name mono' }, usage.caller),
          h('td.num', { 'data-label': 'Requests' }, count(usage.requests)), h('td.num', { 'data-label': 'Backend seconds' }, usage.backend_s.toFixed(2)), h('td.num', { 'data-label': 'Share' }, percent(usage.backend_s / total)),
          h('td', { 'data-label': 'Models', class: 'wide' }, Object.entries(usage.models).slice(0, 6).map(([model, part]) => `${model} (${count(part.requests)})`).join(', ')))))))) ];
}

export function history(loaded) {
  const all = loaded ? loaded.changes : [];
  return [h('div.head', {}, h('div', {}, h('h1', {}, 'History'), h('p.sub', {}, 'The last hundred changes of models in the registry: who, when, why.'))),
    h('section.card.flush', {}, !loaded ? h('p', { class: 'pad soft' }, 'Loading…') : !all.length ? h('p', { class: 'pad soft' }, 'Nothing has been changed yet.')
      : h('div.scroll', { tabindex: 0, role: 'region', 'aria-label': 'Table of changes' }, h('table.stack', {}, h('caption', {}, 'Changes, the newest first'),
        h('thead', {}, h('tr', {}, ...['When', 'Generation', 'What', 'Who', 'Why', 'Difference'].map((label) => h('th', { scope: 'col' }, label)))),
        h('tbody', {}, all.map((change) => h('tr', {}, h('th', { scope: 'row', class: 'mono' }, change.at.slice(0, 19).replace('T', ' ')), h('td', { 'data-label': 'Generation' }, `#${change.generation}`),
          h('td', { 'data-label': 'What' }, `${change.action} `, h('a', { href: `#/model/${encodeURIComponent(change.name)}` }, change.name), ` r${change.revision}`),
          h('td', { 'data-label': 'Who' }, change.author || '–'), h('td', { 'data-label': 'Why' }, change.reason || '–'), h('td', { 'data-label': 'Difference', class: 'wide' }, difference(change.before, change.after)))))))) ];
}

function difference(before, after) {
  if (!before || !after) return before ? 'removed' : 'new';
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].filter((name) => JSON.stringify(before[name]) !== JSON.stringify(after[name]));
  return names.map((name) => ['traffic', 'enabled', 'description', 'owner'].includes(name) ? `${name}: ${JSON.stringify(before[name] ?? null)} → ${JSON.stringify(after[name] ?? null)}` : name).join('; ') || 'none';
}
