// Numbers and times as an operator reads them. All times are UTC, so that two people in two places read the same.
export function ms(value) {
  if (value === null || value === undefined) return '–';
  if (value >= 60000) return `${(value / 60000).toFixed(1)} min`;
  if (value >= 10000) return `${(value / 1000).toFixed(1)} s`;
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  if (value >= 100) return `${value.toFixed(0)} ms`;
  if (value >= 1) return `${value.toFixed(1)} ms`;
  if (value === 0) return '0 ms';
  return `${value.toFixed(value >= 0.1 ? 2 : 3)} ms`;
}

export function count(value) {
  if (value === null || value === undefined) return '–';
  if (value >= 1e9) return `${(value / 1e9).toFixed(1)} G`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (value >= 1e5) return `${(value / 1e3).toFixed(0)} k`;
  return Math.round(value).toLocaleString('en').replaceAll(',', '\u202f');
}

export function rate(value) {
  if (!value) return '0';
  return value >= 100 ? count(value) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export function percent(share) {
  if (!share) return '0 %';
  const value = share * 100;
  return `${value >= 10 ? value.toFixed(0) : value >= 1 ? value.toFixed(1) : value.toFixed(2)} %`;
}

export function bytes(value) {
  if (value >= 1073741824) return `${(value / 1073741824).toFixed(1)} GiB`;
  if (value >= 1048576) return `${(value / 1048576).toFixed(1)} MiB`;
  return value >= 1024 ? `${(value / 1024).toFixed(1)} KiB` : `${value} B`;
}

export function moment(seconds, fraction) {
  return new Date(seconds * 1000).toISOString().replace('T', ' ').slice(0, fraction ? 23 : 19);
}

export function clock(seconds) { return moment(seconds).slice(11); }

// How long something takes or took, in one unit or two.
export function duration(seconds) {
  const whole = Math.max(Math.round(seconds), 0);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export function plural(number, one, many = `${one}s`) { return `${count(number)} ${number === 1 ? one : many}`; }

// A round value of an axis, or one that somebody has set.
export function axisMs(value) {
  const round = (number) => Number(number.toPrecision(6));
  if (value >= 60000) return `${round(value / 60000)} min`;
  return value >= 1000 ? `${round(value / 1000)} s` : `${round(value)} ms`;
}

export function status(code) { return code >= 500 ? 'bad' : code >= 400 ? 'warn' : 'ok'; }

export const SIDES = { gateway: 'the gateway', backend: 'the backend', caller: 'the caller' };
const KEPT = {
  asked: 'an operator asked for its trace', caller: 'the caller asked for its trace', sampled: 'its trace was drawn', failed: 'it failed',
  slow: 'it was slower than 99 % of its version’s last minute', left: 'the caller left before the answer', recent: 'a few of the ordinary requests of each second are kept',
};
export function kept(why) { return KEPT[why] || why; }
const SHORT = { asked: 'asked for by an operator', caller: 'asked for by the caller', sampled: 'sampled', slow: 'slow for its version', recent: 'an ordinary request' };
export function keptShort(why) { return SHORT[why] || kept(why); }

// An error's code in words. A code that is not here stands for itself: docs/how-to/call-a-model.md has all of them.
const CODES = {
  'answered-4xx': 'the backend refused the request', 'answered-5xx': 'the backend answered with an error', left: 'the caller left before the answer',
  'upstream-unreachable': 'no connection', 'upstream-timeout': 'no answer in time', 'upstream-broken': 'a broken answer', 'upstream-unavailable': 'the backend was not available',
  'deadline-exceeded': 'no answer in time', overloaded: 'the queue was full', 'registry-unavailable': 'the registry did not answer', 'internal-error': 'a bug in the gateway',
  unauthenticated: 'no valid key', forbidden: 'a key without this right', 'too-many-requests': 'more requests than allowed', 'model-not-found': 'no such model',
  'bad-request': 'a malformed request', 'payload-too-large': 'a body that is too large', 'address-not-allowed': 'an address that is not allowed', 'method-not-allowed': 'another method than POST',
};
export function code(name) { return CODES[name] ? `${CODES[name]} (${name})` : name; }
export function codeShort(name) { return CODES[name] || name; }
export const WHOSE = { gateway: 'ours', backend: 'the backend’s', caller: 'the caller’s' };
