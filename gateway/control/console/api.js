// The gateway's answers. The key lives in this tab alone and is sent as a header, so no other site can make use of it.
const STORED = 'chips-key';
let key = sessionStorage.getItem(STORED) || '';

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || `The gateway answered with status ${status}.`);
    this.status = status;
    this.code = problem.code || '';
  }
}

export function signIn(given) {
  key = given.trim();
  if (key) sessionStorage.setItem(STORED, key);
  else sessionStorage.removeItem(STORED);
}

export function hasKey() { return Boolean(key); }

export function headers(more) { return key ? { ...more, 'X-Api-Key': key } : { ...more }; }

async function ask(path, options) {
  const answer = await fetch(path, { ...options, headers: headers(options && options.headers), credentials: 'same-origin', redirect: 'error' });
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

export async function read(path) { return (await ask(path, { cache: 'no-store' })).json(); }

// Server-sent events by fetch, because EventSource cannot send a header. Comes back by itself.
export function watch(on, onState) {
  const ended = new AbortController();
  let delay = 500;
  async function run() {
    while (!ended.signal.aborted) {
      try {
        const answer = await ask('/-/events', { signal: ended.signal });
        onState(true);
        delay = 500;
        await pump(answer.body.pipeThrough(new TextDecoderStream()).getReader(), on);
      } catch (error) {
        if (error instanceof Refused && error.status < 500 && error.status !== 429) { onState(false, error); return; }
      }
      if (ended.signal.aborted) return;
      onState(false);
      await new Promise((resolve) => setTimeout(resolve, delay));
      delay = Math.min(delay * 2, 15000);
    }
  }
  run();
  return () => ended.abort();
}

async function pump(reader, on) {
  let buffer = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    let end;
    while ((end = buffer.indexOf('\n\n')) >= 0) {
      const block = buffer.slice(0, end);
      buffer = buffer.slice(end + 2);
      // Line feeds alone end a line here; to a regular expression, U+2028 in somebody's text would, too.
      const lines = block.split('\n');
      const field = (name) => lines.find((line) => line.startsWith(name))?.slice(name.length);
      const name = field('event: ');
      const data = field('data: ');
      if (name && data) on(name, JSON.parse(data));
    }
  }
}
