// The page: one model, one text, and what the memory made of it.
import { load } from "./rillet/index.js";
import { look, weigh } from "./memory.js";
import { drawLosses, readNotes } from "./notes.js";
import { Reader, suggest } from "./suggest.js";
import { drawWaves } from "./waves.js";

const $ = (id) => document.getElementById(id);
const text = $("text");
let model, start, reader, running;

function say(message) {
  $("status").textContent = message;
}

/** Begins anew with a model's empty session, or with one that has learnt. */
function use(session) {
  reader?.close();
  start?.close();
  start = session;
  reader = new Reader(start);
  offer();
}

async function open(folder) {
  running?.abort();
  for (const button of document.querySelectorAll("button")) button.disabled = true;
  $("progress").hidden = false;
  say("Loading…");
  try {
    const fresh = await load(new URL(folder, document.baseURI), {
      onProgress: ({ loaded, total }) => {
        if (total) $("progress").value = loaded / total;
        say(`${(loaded / 1e6).toFixed(1)} MB`);
      },
      onNote: () => {}, // what has no token is left out
    });
    model = fresh;
    use(model.session());
    $("go").disabled = $("learn").disabled = false;
    say(await describe());
    document.documentElement.dataset.ready = folder;
  } catch (error) {
    say(error.message);
  }
  $("progress").hidden = true;
}

/** How large the model is, and how fast here. */
async function describe() {
  await model.generate("", { maxNewTokens: 400 }); // until the compiler has done its best
  const begin = performance.now();
  await model.generate("", { maxNewTokens: 400 });
  const each = `${Math.round((1000 * (performance.now() - begin)) / 400)} µs a token here`;
  const { parameters } = model.manifest.training ?? {};
  return parameters ? `${parameters.toLocaleString("en")} parameters, ${each}` : each;
}

/** Offers what may come next. */
function offer() {
  if (!reader) return;
  const session = reader.at(text.value);
  const texts = suggest(model, session);
  drawWaves($("waves"), session);
  session.close();
  $("suggestions").replaceChildren(
    ...texts.map((one) => {
      const button = document.createElement("button");
      button.textContent = one.replaceAll("\n", "⏎").replaceAll(" ", "␣");
      button.setAttribute("aria-label", `Add ${one.trim() || "a space"}`);
      button.onclick = () => {
        text.value += one;
        offer();
        text.focus();
      };
      return button;
    })
  );
}

/** Adds a token's text, coloured by what the memory gave. */
function show(piece, seen) {
  const span = document.createElement("span");
  span.textContent = piece;
  if (seen) {
    span.style.setProperty("--weight", Math.sqrt(seen.weight).toFixed(2));
    span.dataset.found = seen.text;
  }
  $("output").append(span);
}

/** Streams; a look at the memory before each token tells what it gave. */
async function go() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const session = reader.at(text.value);
  $("output").replaceChildren();
  $("found").textContent = $("written").textContent = "";
  $("go").disabled = true;
  $("stop").disabled = false;
  let count = 0;
  try {
    const temperature = Number($("temperature").value);
    const pieces = session.stream({ temperature, maxNewTokens: 400, signal });
    for (;;) {
      const before = session.logits && look(session);
      const { value: piece, done } = await pieces.next();
      if (done) break;
      count++;
      const tokens = before ? model.encode(piece) : [];
      show(piece, tokens.length === 1 ? weigh(model, before, tokens[0]) : undefined);
      if (count % 4) continue;
      drawWaves($("waves"), session);
      $("output").scrollTop = $("output").scrollHeight;
      await new Promise(requestAnimationFrame);
    }
  } catch (error) {
    if (!signal.aborted) say(error.message);
  }
  drawWaves($("waves"), session);
  session.close();
  $("written").textContent = `${count} tokens`;
  $("go").disabled = false;
  $("stop").disabled = true;
}

/** Tells of one character. */
function choose(span) {
  if (!span?.dataset?.found) return;
  $("output").querySelector(".chosen")?.classList.remove("chosen");
  span.classList.add("chosen");
  span.scrollIntoView({ block: "nearest" });
  $("found").textContent = span.dataset.found;
}

function move(event) {
  const step = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
  if (!step) return;
  event.preventDefault();
  const chosen = $("output").querySelector(".chosen");
  choose(chosen ? chosen[step] : $("output").firstElementChild);
}

async function learn() {
  const notes = $("notes").value;
  $("learn").disabled = true;
  let title = "";
  await readNotes(model, notes, (losses) => (title = drawLosses($("loss"), losses) ?? title));
  const session = start.fork();
  session.learn(notes);
  use(session);
  $("learnt").textContent = title || "The notes are too short to measure.";
  $("learn").disabled = $("forget").disabled = false;
}

function forget() {
  use(model.session());
  $("forget").disabled = true;
  $("learnt").textContent = "Forgotten.";
}

async function begin() {
  const models = await (await fetch("models.json")).json();
  $("model").append(...models.map(({ label, folder }) => new Option(label, folder)));
  $("model").onchange = () => open($("model").value);
  text.oninput = offer;
  $("go").onclick = go;
  $("stop").onclick = () => running.abort();
  $("temperature").oninput = () => ($("temperature-value").value = $("temperature").value);
  $("output").onpointerover = $("output").onclick = (event) => choose(event.target);
  $("output").onkeydown = move;
  $("learn").onclick = learn;
  $("forget").onclick = forget;
  $("notes").value = await (await fetch("notes.txt")).text();
  await open(models[0].folder);
}

async function keep() {
  if (!navigator.serviceWorker) return;
  await navigator.serviceWorker.register("sw.js");
  await navigator.serviceWorker.ready;
  if (!navigator.serviceWorker.controller) {
    // It takes the page over soon, but not after a reload that goes past it.
    const taken = new Promise((resolve) => (navigator.serviceWorker.oncontrollerchange = resolve));
    await Promise.race([taken, new Promise((resolve) => setTimeout(resolve, 2000))]);
  }
  $("offline").textContent = "Kept on this device: the page also works offline.";
}

// The worker first, so that it keeps what is loaded next.
keep()
  .catch(() => {})
  .then(begin)
  .catch((error) => say(`The page cannot start (${error.message}); load it again`));
