// The page: one model, one text, and what the model makes of them. engine.js is what it runs on.
import * as engine from "./engine.js";
import { drawLosses, readNotes } from "./notes.js";

const $ = (id) => document.getElementById(id);
const text = $("text");
let model, start, running, offering;

function say(message) {
  $("status").textContent = message;
}

function tell(error) {
  if (error.wantsKey) $("key-form").hidden = false;
  say(error.message);
}

/** What can be pressed: nothing without a model, only Stop while it works. */
function enable(isBusy = false) {
  $("go").disabled = $("learn").disabled = !model || isBusy;
  $("forget").disabled = !start?.hasLearnt || isBusy;
  $("stop").disabled = !isBusy;
}

/** Does what takes a while: one thing at a time, until the button stops it. */
async function work(action) {
  running?.abort();
  const control = (running = new AbortController());
  enable(true);
  try {
    await action(control.signal);
  } catch (error) {
    if (!control.signal.aborted) tell(error);
  }
  if (running === control) enable();
}

/** Begins anew with a model's empty session, or with one that has learnt. */
function use(session) {
  start?.close();
  start = session;
  enable();
  offer();
}

async function open(id) {
  running?.abort();
  model = undefined;
  enable();
  $("progress").hidden = false;
  say("Loading…");
  try {
    const fresh = await engine.open(id, ({ loaded, total }) => {
      if (total) $("progress").value = loaded / total;
      say(`${(loaded / 1e6).toFixed(1)} MB`);
    });
    model = fresh;
    use(await model.start());
    say(await model.describe());
    document.documentElement.dataset.ready = id;
  } catch (error) {
    tell(error);
  }
  $("progress").hidden = true;
}

/** Offers what may come next. */
async function offer() {
  offering?.abort();
  if (!model) return;
  const { signal } = (offering = new AbortController());
  let place;
  try {
    place = await start.at(text.value, signal);
    place.draw?.($("waves"));
    const texts = await place.suggest(signal);
    if (!signal.aborted) $("suggestions").replaceChildren(...texts.map(suggestion));
  } catch (error) {
    if (!signal.aborted) tell(error);
  } finally {
    place?.close();
  }
}

function suggestion(one) {
  const button = document.createElement("button");
  button.textContent = one.replaceAll("\n", "⏎").replaceAll(" ", "␣");
  button.setAttribute("aria-label", `Add ${one.trim() || "a space"}`);
  button.onclick = () => {
    text.value += one;
    offer();
    text.focus();
  };
  return button;
}

/** Adds a piece of text, coloured by what the memory gave where that is known. */
function show({ text, seen }) {
  const span = document.createElement("span");
  span.textContent = text;
  if (seen) {
    span.style.setProperty("--weight", Math.sqrt(seen.weight).toFixed(2));
    span.dataset.found = seen.text;
  }
  $("output").append(span);
}

function options(signal) {
  const seed = $("seed").value;
  return {
    temperature: Number($("temperature").value),
    maxNewTokens: Number($("tokens").value),
    ...(seed && { seed: Number(seed) }),
    signal,
  };
}

/** Continues the text. */
async function go(signal) {
  $("output").replaceChildren();
  $("found").textContent = $("written").textContent = "";
  const began = performance.now();
  const since = () => `${((performance.now() - began) / 1000).toFixed(2)} s`;
  let tokens = 0;
  let shown = 0;
  let place;
  try {
    place = await start.at(text.value, signal);
    for await (const piece of place.write(options(signal))) {
      ({ tokens } = piece);
      if (piece.text) show(piece);
      if (++shown % 4) continue;
      place.draw?.($("waves"));
      $("output").scrollTop = $("output").scrollHeight;
      await new Promise(requestAnimationFrame);
    }
    $("written").textContent = `${tokens} tokens in ${since()}`;
  } catch (error) {
    if (!signal.aborted) throw error;
    $("written").textContent = `Stopped after ${since()}`;
  } finally {
    place?.draw?.($("waves"));
    place?.close();
  }
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
  if (!step || $("inside").hidden) return;
  event.preventDefault();
  const chosen = $("output").querySelector(".chosen");
  choose(chosen ? chosen[step] : $("output").firstElementChild);
}

async function learn(signal) {
  const notes = $("notes").value;
  let title = "";
  $("learnt").textContent = "";
  const draw = (losses) => (title = drawLosses($("loss"), losses) ?? title);
  try {
    await readNotes(model, notes, draw, signal);
    use(await start.taught(notes, signal));
    $("learnt").textContent = title || "The notes are too short to measure.";
  } catch (error) {
    if (!signal.aborted) throw error;
    $("learnt").textContent = "Stopped; nothing was learnt.";
  }
}

async function forget() {
  use(model.session());
  $("learnt").textContent = "Forgotten.";
}

/** Finds the models, and opens the first, or the one whose stream the address names. */
async function find() {
  const models = await engine.models();
  $("key-form").hidden = true;
  $("model").replaceChildren(...models.map(({ label, id }) => new Option(label, id)));
  const first = models.find(({ isChosen }) => isChosen) ?? models[0];
  $("model").value = first.id;
  await open(first.id);
}

async function begin() {
  $("about").textContent = engine.about;
  $("inside").hidden = !engine.looksInside;
  $("model").onchange = () => open($("model").value);
  text.oninput = offer;
  $("go").onclick = () => work(go);
  $("stop").onclick = () => running.abort();
  $("temperature").oninput = () => ($("temperature-value").value = $("temperature").value);
  $("output").onpointerover = $("output").onclick = (event) => choose(event.target);
  $("output").onkeydown = move;
  $("learn").onclick = () => work(learn);
  $("forget").onclick = forget;
  $("key-form").onsubmit = (event) => {
    event.preventDefault();
    engine.useKey($("key").value);
    find().catch(tell);
  };
  $("notes").value = await (await fetch("notes.txt")).text();
  await engine.prepare($("footer"));
  await find();
}

begin().catch((error) => {
  $("progress").hidden = true;
  tell(error);
});
