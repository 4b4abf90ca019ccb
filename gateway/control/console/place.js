// Where the reader is: everything that decides what is shown stands in the address, so that it can be sent to somebody.
// What stands after "the last".
export const WINDOWS = { '10s': '10 seconds', '1m': 'minute', '1h': 'hour' };
export const DEFAULT_WINDOW = '1m';

export function parse(hash) {
  const [path, query = ''] = hash.replace(/^#\/?/, '').split('?');
  const [page = '', ...rest] = path.split('/').map(decode);
  return { page, name: rest.join('/'), query: Object.fromEntries(new URLSearchParams(query)) };
}

function decode(text) { try { return decodeURIComponent(text); } catch { return text; } }

export function href(page, name = '', query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== '' && value !== null && value !== undefined);
  const path = `#/${page}${name ? `/${encodeURIComponent(name)}` : ''}`;
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

// The address of `place` with some of its parameters changed.
export function having(place, changed) { return href(place.page, place.name, { ...place.query, ...changed }); }

export function windowOf(place) { return WINDOWS[place.query.window] ? place.query.window : DEFAULT_WINDOW; }

// The parameter that keeps the reader's window on other pages.
export function kept(place) { return windowOf(place) === DEFAULT_WINDOW ? {} : { window: windowOf(place) }; }
