// The gateway's answers. The key lives in this tab alone and is sent as a header, so no other site can make use of it.
const STORED = 'chips-key';
const PATIENCE_MS = 10000;
let key = sessionStorage.getItem(STORED) || '';

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || `The gateway answered with status ${status}.`);
    this.status = status;
    this.code = problem.code || '';
  }
}

// The gateway does not answer, or what answers instead of it says so.
export class Away extends Error {}

export function signIn(given) {
  key = given.trim();
  if (key) sessionStorage.setItem(STORED, key);
  else sessionStorage.removeItem(STORED);
}

export function hasKey() { return Boolean(key); }

export function headers(more) { return key ? { ...more, 'X-Api-Key': key } : { ...more }; }

export function read(path) { return ask(path, {}); }

// Only what somebody has signed is sent: a decision.
export function send(path, content) { return ask(path, { method: 'POST', body: JSON.stringify(content) }); }

async function ask(path, { method = 'GET', body }) {
  let answer;
  try {
    answer = await fetch(path, { method, body, headers: headers(body ? { 'Content-Type': 'application/json' } : {}), cache: 'no-store', credentials: 'same-origin', redirect: 'error', signal: AbortSignal.timeout(PATIENCE_MS) });
    if (answer.ok) return await answer.json();
  } catch (error) {
    throw new Away(error.message);
  }
  const problem = await answer.json().catch(() => ({}));
  if (answer.status >= 502 && !problem.code) throw new Away(`something in front of the gateway answered ${answer.status}`);
  throw new Refused(answer.status, problem);
}
