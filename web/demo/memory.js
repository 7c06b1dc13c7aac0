// What the memory found: how much of each character's probability came from it.

/** The numbers of a state tensor, or nothing if the model has none of that name. */
function numbers(session, name) {
  const tensor = session.state(name);
  return tensor && Array.from(tensor.values, Number);
}

/**
 * What the memory says of the next token: for each token that it found, its share of the whole
 * probability. Undefined for a model whose memory cannot be looked at so.
 */
export function look(session) {
  const shares = numbers(session, "context_shares");
  const slots = numbers(session, "context_slots");
  if (!shares || !slots) return undefined;
  const found = new Map();
  for (let c = 0; 2 * c < shares.length; c++) {
    const [, , , first, second] = slots.slice(6 * c);
    found.set(first, (found.get(first) ?? 0) + shares[2 * c]);
    found.set(second, (found.get(second) ?? 0) + shares[2 * c + 1]);
  }
  return { found, logits: session.logits };
}

/** What a look says of the token that came. */
export function weigh(model, before, token) {
  const chance = Math.exp(before.logits[token]);
  const weight = Math.min(1, (before.found.get(token) ?? 0) / chance);
  const best = [...before.found].filter(([, share]) => share > 0.005).sort((a, b) => b[1] - a[1]);
  const names = best.slice(0, 4).map(([one, share]) => `${name(model, one)} ${percent(share)}`);
  return { weight, text: `${name(model, token)} had ${percent(chance)}, of which the memory gave ` +
    `${percent(weight)}. It found ${names.length ? names.join(", ") : "nothing"}.` };
}

const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

export function name(model, token) {
  const text = new TextDecoder().decode(model.token(token));
  return { "\n": "a new line", " ": "a space" }[text] ?? `“${text}”`;
}
