// What every page is made of. Text is always text: there is no way in here for markup that somebody sent.
import { Component, h, options, render } from './vendor/preact.mjs';
import htm from './vendor/htm.mjs';

export { Component, render };
export const html = htm.bind(h);

// Controls, format and bidirectional marks, unassigned and private characters are written out, because they hide or
// reorder what stands around them. Line feeds and tabs stay: a page shows them as blanks.
const HIDDEN = /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0]/gu;
const SPOKEN = ['title', 'aria-label', 'alt', 'placeholder'];

export function printable(text) {
  return String(text).replace(HIDDEN, (found) => {
    const code = found.codePointAt(0);
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}`
      : code < 0x10000 ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`;
  });
}

// Every element and every text passes here before it is shown.
options.vnode = (vnode) => {
  if (vnode.type === null) vnode.props = printable(vnode.props);
  else if (typeof vnode.type === 'string') {
    for (const name of SPOKEN) if (vnode.props[name] !== undefined) vnode.props[name] = printable(vnode.props[name]);
  }
};

export function Pill({ mood = '', children }) { return html`<span class="pill ${mood}">${children}</span>`; }

export function Tile({ label, value, more, mood }) {
  return html`<div class="tile"><dt>${label}</dt><dd class=${mood}>${value}${more && html`<small>${more}</small>`}</dd></div>`;
}

export function Facts({ rows }) {
  return html`<dl class="facts">${rows.filter(Boolean).map(([label, content]) => html`<dt>${label}</dt><dd>${content}</dd>`)}</dl>`;
}

// A table that becomes a list of cards on a narrow screen. A column is [label, class].
export function Table({ caption, columns, children, id }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}><table class="stack" id=${id}>
    <caption>${caption}</caption>
    <thead><tr>${columns.map(([label, kind, more]) => html`<th scope="col" class=${kind} ...${more && more.props}>${more ? more.content : label}</th>`)}</tr></thead>
    <tbody>${children}</tbody></table></div>`;
}

export class Copy extends Component {
  async copy(button) {
    try {
      await navigator.clipboard.writeText(this.props.text);
    } catch { // no secure context: mark it, so that the keyboard copies it
      getSelection().selectAllChildren(button.parentElement.querySelector('code, pre') || button);
      this.setState({ done: 'Marked: press Ctrl+C' });
      return;
    }
    this.setState({ done: 'Copied' });
  }

  componentDidUpdate(before) { if (before.text !== this.props.text) this.setState({ done: '' }); }

  render({ text, label = 'Copy' }, { done }) {
    return html`<button type="button" class="copy" aria-label=${done || `${label}: ${text}`.slice(0, 200)} onclick=${(event) => this.copy(event.currentTarget)}>${done || label}</button>`;
  }
}

// What to type at a terminal. The console itself changes nothing but what a person has signed.
export function Command({ label, text }) {
  return html`<div class="command">${label && html`<span>${label}</span>`}<div><code>${text}</code><${Copy} text=${text} /></div></div>`;
}

export function Code({ text, label }) {
  return html`<div class="listing"><${Copy} text=${text} /><pre tabindex="0" role="region" aria-label=${label}>${text}</pre></div>`;
}

export function Pager({ skip, limit, found, to }) {
  if (found <= limit && !skip) return null;
  return html`<nav class="pager" aria-label="Pages">
    ${skip > 0 && html`<a href=${to(Math.max(skip - limit, 0))}>← Previous ${limit}</a>`}
    <span class="soft">${skip + 1} to ${Math.min(skip + limit, found)} of ${found}</span>
    ${skip + limit < found && html`<a href=${to(skip + limit)}>Next ${Math.min(limit, found - skip - limit)} →</a>`}
  </nav>`;
}

// Not a link that changes the address: the address says which page is shown.
export function Skip() {
  return html`<a class="skip" href="#main" onclick=${(event) => { event.preventDefault(); document.getElementById('main').focus(); }}>Skip to the content</a>`;
}
