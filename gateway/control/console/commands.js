// The commands that change what a page shows, ready for a shell.
export function quote(word) {
  return /^[A-Za-z0-9@%+=:,./_-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

export function chips(...words) { return ['chips', ...words].map((word) => quote(String(word))).join(' '); }

export function traffic(model, split) {
  return chips('traffic', model, ...Object.entries(split).map(([version, share]) => `${version}=${share}`));
}

// The command that takes a change of the registry back; null where none can.
export function undo(change) {
  const { kind, action, name, revision, network } = change;
  if (kind === 'models') {
    return action === 'create' && revision === 1 ? chips('deregister', name) : chips('rollback', name, '--to', revision - 1);
  }
  if (kind === 'networks' && network) return action === 'create' ? chips('networks', 'remove', network) : action === 'delete' ? chips('networks', 'add', network) : null;
  return kind === 'keys' && action === 'create' ? chips('keys', 'revoke', name) : null;
}

export function traceOf(id) { return chips('why', id); }
