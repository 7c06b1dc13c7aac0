// Reads notes piece by piece, and draws how the loss falls.

const PIECE = 160;

function pieces(text) {
  return text.match(new RegExp(`[^]{1,${PIECE}}(?=\\s|$)|[^]{1,${PIECE}}`, "g")) ?? [];
}

/**
 * Reads a text with a session, and with one whose memory is off.
 *
 * @returns the losses of each piece: [with memory, without].
 */
export async function readNotes(model, text, onPiece, signal) {
  const sessions = [model.session(), model.session({ memory: false })];
  const losses = [];
  try {
    for (const piece of pieces(text)) {
      const pair = await Promise.all(sessions.map((session) => session.loss(piece, signal)));
      // undefined: too short to measure, or of characters that the model has never seen
      if (pair.every((loss) => loss !== undefined)) losses.push(pair);
      await Promise.all(sessions.map((session) => session.feed(piece, signal)));
      onPiece(losses);
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
  } finally {
    for (const session of sessions) session.close();
  }
  return losses;
}

/** Averages of what came so far, recent pieces counting most. */
function smooth(values) {
  let sum = 0;
  let weight = 0;
  return values.map((value) => {
    sum = 0.8 * sum + value;
    weight = 0.8 * weight + 1;
    return sum / weight;
  });
}

function line(values, top, className) {
  const x = (i) => 40 + (550 * i) / Math.max(1, values.length - 1);
  const y = (value) => 175 - (160 * value) / top;
  const points = values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`);
  return `<path class="${className}" d="M${points.join("L")}"/>`;
}

/** Draws the losses so far. */
export function drawLosses(svg, losses) {
  if (!losses.length) return;
  svg.removeAttribute("hidden");
  const lines = [0, 1].map((i) => smooth(losses.map((pair) => pair[i])));
  const top = Math.ceil(Math.max(...lines.flat()));
  const last = lines.map((values) => values.at(-1).toFixed(2));
  const title = `Loss in nats a character: ${last[0]} with the memory, ${last[1]} without`;
  svg.innerHTML =
    `<title id="loss-title">${title}</title>` +
    `<path class="grid" d="M40,15H590M40,95H590M40,175H590"/>` +
    `<text x="34" y="22" text-anchor="end">${top}</text><text x="34" y="180" text-anchor="end">0</text>` +
    `<text x="48" y="34">nats a character</text>` +
    `<text x="590" y="197" text-anchor="end">characters read: ${losses.length * PIECE}</text>` +
    line(lines[1], top, "without") + line(lines[0], top, "with");
  return title;
}
