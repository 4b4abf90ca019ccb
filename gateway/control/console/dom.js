// Elements from data. Text is always text: there is no way in here for markup that somebody sent.
const SVG = 'http://www.w3.org/2000/svg';
const HANDLERS = ['onclick', 'oninput', 'onchange', 'onsubmit'];

// Controls, format and bidirectional marks, unassigned and private characters: written out, for they hide or reorder what
// stands around them. Line feeds and tabs stay: a page sets them as blanks.
const HIDDEN = /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0]/gu;
const SPOKEN = ['title', 'aria-label', 'alt', 'placeholder'];

export function printable(text) {
  return String(text).replace(HIDDEN, (found) => {
    const code = found.codePointAt(0);
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}`
      : code < 0x10000 ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`;
  });
}

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (HANDLERS.includes(name)) node[name] = value;
    else if (name === 'place') { node.style.left = value[0]; node.style.width = value[1]; }
    else if (name === 'value') node.value = value;
    else node.setAttribute(name, value === true ? '' : SPOKEN.includes(name) ? printable(value) : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : printable(child))));
  return node;
}

export function h(tag, attributes, ...children) {
  const [name, ...classes] = tag.split('.');
  const node = document.createElement(name);
  if (classes.length) node.className = classes.join(' ');
  return build(node, attributes, children);
}

export function s(tag, attributes, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

// Make `old` look like `fresh` and keep its nodes, so that focus, selection and scrolling stay where they are.
export function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) {
    if (name !== 'style' && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (fresh.style && old.style.cssText !== fresh.style.cssText) old.style.cssText = fresh.style.cssText;
  for (const name of HANDLERS) if (old[name] !== fresh[name]) old[name] = fresh[name];
  if (old.dataset && old.dataset.keep !== undefined) return; // a form somebody may be filling in
  fill(old, [...fresh.childNodes]);
}

export function fill(node, children) {
  const before = [...node.childNodes];
  children.forEach((child, index) => {
    if (index < before.length) morph(before[index], child);
    else node.append(child);
  });
  before.slice(children.length).forEach((child) => child.remove());
}
