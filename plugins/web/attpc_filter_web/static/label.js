// The page for labelling: shows an event, takes an answer, shows the next one.

import {
  byId, complain, get, getEvent, getPads, isForPage, labeller, make, post, setClassColour,
  setLabeller, share, showHeader, toggleTheme,
} from "./common.js";
import { drawTrace } from "./trace.js";
import { EventView, NOISE_MODES } from "./view.js";

const KEYS = [
  ["1 … 9", "a class"], ["u", "unsure"], ["space", "as the model suggests (scores in sight only)"],
  ["n", "a note, which goes with the answer"], ["Backspace", "undo the last answer"],
  ["← →", "look back at own answers, and forward"], ["s", "show or hide the model's scores"],
  ["x", "noise hits: marked as rings, hidden, as others"], ["c", "colour by charge or by time"],
  [", .", "next weaker or stronger hit, with its trace"], ["+ − 0", "magnify, and back"],
  ["⇧ arrows", "turn the view in space"], ["d", "light or dark"], ["?", "this help"],
];
const MOST_KEPT = 12;

const page = {
  setup: null, view: null, task: null, upcoming: null, shown: -1, since: 0, note: "", busy: false,
  scores: false, history: [], back: -1, kept: new Map(),
};

async function start() {
  const address = new URLSearchParams(location.search);
  if (address.get("labeller")) setLabeller(address.get("labeller"));
  page.setup = await get("/api/setup");
  showHeader(page.setup,
    make("button", { id: "who", onclick: askName, title: "labeller" }),
    make("button", { onclick: help, title: "keys (?)" }, "?"));
  page.view = new EventView(byId("view"), page.setup.geometry, await getPads());
  page.view.onchoose = showTrace;
  addAnswers();
  addTools();
  addPolicies(address.get("policy"));
  document.addEventListener("keydown", onKey);
  document.addEventListener("theme", () => showTrace(page.view.chosen));
  if (!labeller()) await askName();
  showName();
  if (address.get("row") !== null) await lookAt(Number(address.get("row")));
  else await loadNext();
}

function showName() { byId("who").textContent = labeller() || "who?"; }

function addAnswers() {
  const { classes, unsure } = page.setup;
  const button = (label, key) => {
    const element = make("button", { onclick: () => answer(label), "data-label": label, "aria-pressed": "false" },
      make("kbd", {}, key), label);
    setClassColour(element, classes, label);
    return element;
  };
  byId("answers").replaceChildren(
    ...classes.map((name, index) => button(name, String(index + 1))), button(unsure, "u"));
}

function addTools() {
  const tool = (key, text, act) => make("button", { onclick: act }, make("kbd", {}, key), ` ${text}`);
  byId("tools").replaceChildren(
    tool("n", "note", askNote), tool("⌫", "undo", undo), tool("←", "back", () => look(1)),
    tool("→", "forward", () => look(-1)),
    ...(page.setup.has_scores ? [tool("s", "scores", toggleScores)] : []),
    tool("x", "noise", nextNoise), tool("c", "colour", nextColour));
}

function addPolicies(wanted) {
  const { policies } = page.setup;
  const select = byId("policy");
  select.replaceChildren(...policies.map(({ name, help: text }) =>
    make("option", { value: name, title: text }, name)));
  const held = wanted ?? localStorage.getItem("policy");
  if (policies.some(({ name }) => name === held)) select.value = held;
  byId("filter").value = localStorage.getItem("filter") ?? "";
  const changed = () => {
    localStorage.setItem("policy", select.value);
    localStorage.setItem("filter", byId("filter").value);
    byId("filter").hidden = select.value !== "filter";
    loadNext();
  };
  byId("filter").hidden = select.value !== "filter";
  select.addEventListener("change", () => { changed(); select.blur(); });
  byId("filter").addEventListener("change", changed);
}

function asked() {
  const policy = byId("policy").value;
  return { labeller: labeller(), policy, filter: policy === "filter" ? byId("filter").value : "" };
}

// Events are asked for once; the next one is here before it is needed.
function event(row) {
  if (!page.kept.has(row)) {
    const wanted = getEvent(row);
    wanted.catch(() => page.kept.delete(row));
    page.kept.set(row, wanted);
    if (page.kept.size > MOST_KEPT) page.kept.delete(page.kept.keys().next().value);
  }
  return page.kept.get(row);
}

async function loadNext() {
  await tried(async () => {
    page.history = await get("/api/history", { labeller: labeller() });
    await take(await get("/api/next", asked()));
  });
}

// Takes the server's word on what comes next, and shows it.
async function take(next) {
  page.task = next.task;
  page.upcoming = next.upcoming;
  page.back = -1;
  showProgress(next);
  await show(next.task ? next.task.row : -1, "", next.said);
  if (next.upcoming !== null) event(next.upcoming).catch(() => {});
}

function showProgress(next) {
  const way = page.setup.policies.find(({ name }) => name === asked().policy);
  const texts = [way.help, `${next.n_answers} answers by you`];
  if (asked().policy === "suggest") {
    texts.push(next.suggestions ? `suggestions made ${next.suggestions}×` : "suggestions are being made");
    if (next.suggestions_error) texts.push(`they could not be made anew: ${next.suggestions_error}`);
  }
  byId("progress").textContent = texts.join(" · ");
}

async function show(row, label = "", said = {}) {
  page.note = "";
  page.shown = row;
  byId("note").textContent = "";
  mark(label);
  if (row < 0) {
    page.view.setEvent(null);
    byId("title").textContent = "Nothing left here";
    byId("about").textContent = "Choose another way to the next event below.";
    byId("scores").replaceChildren();
    showSaid({});
    document.body.dataset.row = "none";
    return;
  }
  const shown = await event(row);
  if (page.shown !== row) return;
  page.view.setEvent(shown);
  byId("title").textContent = `Run ${shown.run} · event ${shown.event}`;
  const noise = shown.signal.reduce((sum, value) => sum + (value ? 0 : 1), 0);
  byId("about").textContent = `${shown.n_hits} hits, ${noise} of them noise`;
  showSaid(said);
  showTrace(-1);
  page.since = performance.now();
  document.body.dataset.row = String(row);
  await showScores();
}

function mark(label) {
  for (const button of byId("answers").children) {
    button.setAttribute("aria-pressed", String(button.dataset.label === label));
  }
}

function showSaid(said) {
  const entries = Object.entries(said ?? {});
  byId("said").replaceChildren(...entries.map(([name, label]) =>
    make("div", {}, `${name}: `, make("b", {}, label))));
}

async function showScores() {
  const box = byId("scores");
  if (!page.scores && page.back < 0) { box.replaceChildren(); return; }
  const row = page.shown;
  const found = await get(`/api/events/${row}/scores`);
  if (row !== page.shown) return;
  box.replaceChildren(...scoreBars(found));
}

function scoreBars(found) {
  if (!found.tag) return [make("span", { class: "soft" }, "no scores")];
  const bars = Object.entries(found.scores).flatMap(([name, score]) => [
    make("span", {}, name), make("meter", { value: score ?? 0, min: 0, max: 1 }), make("span", {}, share(score)),
  ]);
  return [...bars, make("span", {}, "tag"), make("b", {}, found.tag), make("span", {})];
}

async function answer(label) {
  if (page.busy || page.shown < 0) return;
  page.busy = true;
  await tried(async () => {
    const looking = page.back >= 0 ? page.history[page.back] : null;
    const policy = looking ? "gallery" : page.task?.policy ?? "gallery";
    const next = await post("/api/answers", {
      ...asked(), policy, row: page.shown, label, note: page.note,
      seconds: (performance.now() - page.since) / 1000,
      scores_shown: page.scores || page.back >= 0,
      corrects: looking ? looking.uuid : "", correction: policy === "gallery",
    });
    const { answered, uuid } = next;
    showLast(answered);
    if (policy === "gallery") { await loadNext(); return; }
    page.history.unshift({ row: answered.row, label, note: page.note, uuid });
    await take(next);
  });
  page.busy = false;
}

function showLast(answered) {
  const best = Object.entries(answered.scores).sort((a, b) => b[1] - a[1])[0];
  const model = best && best[1] !== null ? `; the model: ${best[0]} ${share(best[1])}` : "";
  byId("last").replaceChildren("You said ", make("b", {}, answered.label), model);
}

async function undo() {
  if (page.busy) return;
  page.busy = true;
  await tried(async () => {
    const undone = await post("/api/undo", { labeller: labeller() });
    if (undone.row === null || undone.row === undefined) {
      byId("last").textContent = "There is no answer to undo.";
      return;
    }
    page.history = await get("/api/history", { labeller: labeller() });
    page.task = { row: undone.row, policy: asked().policy };
    page.back = -1;
    byId("last").textContent = `Undone: ${undone.label}. Answer again.`;
    await show(undone.row);
  });
  page.busy = false;
}

// Looks one answer further back (1), or forward (-1) up to the event that waits for an answer.
async function look(direction) {
  const back = Math.min(Math.max(page.back + direction, -1), page.history.length - 1);
  if (back === page.back || page.busy) return;
  page.back = back;
  await tried(async () => {
    if (back < 0) { await show(page.task ? page.task.row : -1); return; }
    const past = page.history[back];
    await show(past.row, past.label);
    byId("note").textContent = past.note ? `note: ${past.note}` : "";
  });
}

// An event that another page points to; an answer corrects what one said of it.
async function lookAt(row) {
  await tried(async () => {
    page.history = await get("/api/history", { labeller: labeller() });
    const at = page.history.findIndex((past) => past.row === row);
    page.back = at;
    await show(row, at < 0 ? "" : page.history[at].label);
  });
}

async function asSuggested() {
  if (!page.scores || page.shown < 0) return;
  const found = await get(`/api/events/${page.shown}/scores`);
  const known = Object.entries(found.scores).filter(([name]) => page.setup.classes.includes(name));
  const best = known.sort((a, b) => b[1] - a[1])[0];
  if (best && best[1] !== null) await answer(best[0]);
}

function toggleScores() {
  if (!page.setup.has_scores) return;
  page.scores = !page.scores;
  tried(showScores);
}

function nextNoise() {
  const { view } = page;
  view.setNoise(NOISE_MODES[(NOISE_MODES.indexOf(view.noise) + 1) % NOISE_MODES.length]);
}

function nextColour() { page.view.setColour(page.view.by === "charge" ? "time" : "charge"); }

async function showTrace(hit) {
  const canvas = byId("trace");
  const { event: shown } = page.view;
  if (!shown || hit < 0) {
    const text = shown && !shown.has_traces ? "This file holds hits only, no traces."
      : "Click a hit, or press , or . for its trace.";
    drawTrace(canvas, null, text);
    return;
  }
  const [pad, row] = [shown.pad[hit], page.shown];
  const trace = shown.has_traces && pad >= 0 ? await get(`/api/events/${row}/trace/${pad}`) : null;
  if (row !== page.shown || hit !== page.view.chosen) return;
  const bucket = trace ? trace.peaks.find((_, index) => Math.abs(trace.charges[index] - shown.charge[hit]) < 0.06) : null;
  drawTrace(canvas, trace, page.view.describe(hit).replace("\n", "   "), bucket ?? null);
}

function askNote() { ask("Note on this event", page.note, (text) => {
  page.note = text;
  byId("note").textContent = text ? `note: ${text}` : "";
}); }

function askName() {
  return ask("Who labels?", labeller() || page.setup.user, (name) => {
    if (!name) return;
    const changed = name !== labeller();
    setLabeller(name);
    showName();
    if (changed && page.task) loadNext();
  });
}

function ask(title, value, take_) {
  const dialog = byId("ask");
  const field = make("input", { value, maxlength: 200, "aria-label": title });
  dialog.replaceChildren(
    make("form", { method: "dialog" }, make("h2", {}, title), field,
      make("div", { class: "row" }, make("button", { class: "main", value: "ok" }, "Keep"),
        make("button", { value: "no", formnovalidate: true }, "Cancel"))));
  dialog.returnValue = "";
  dialog.showModal();
  field.select();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      if (dialog.returnValue === "ok") take_(field.value.trim());
      resolve();
    }, { once: true });
  });
}

function help() {
  const dialog = byId("help");
  const { clean } = page.setup;
  const noise = `Noise: fewer than ${clean.neighbours} other hits within ${clean.radius_mm} mm` +
    (clean.mode === "hough" ? ", or off every line and spiral." : ".");
  const list = make("dl", {}, ...KEYS.flatMap(([key, text]) =>
    [make("dt", {}, make("kbd", {}, key)), make("dd", {}, text)]));
  dialog.replaceChildren(make("h2", {}, "Keys"), list,
    make("p", { class: "soft" }, `Mouse: wheel magnifies, drag moves or turns, double click goes back. ${noise}`),
    make("form", { method: "dialog", class: "row" }, make("button", { class: "main" }, "Close")));
  dialog.showModal();
}

function onKey(press) {
  if (!isForPage(press)) return;
  const { view, setup } = page;
  if (press.shiftKey && press.key.startsWith("Arrow")) {
    const turns = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, -0.12], ArrowDown: [0, 0.12] };
    view.rotate(...turns[press.key]);
    press.preventDefault();
    return;
  }
  const acts = {
    u: () => answer(setup.unsure), " ": asSuggested, n: askNote, Backspace: undo,
    ArrowLeft: () => look(1), ArrowRight: () => look(-1), s: toggleScores, x: nextNoise,
    c: nextColour, ",": () => view.step(-1), ".": () => view.step(1), "+": () => view.magnify(1.4),
    "-": () => view.magnify(1 / 1.4), 0: () => view.reset(), d: toggleTheme, "?": help,
  };
  const number = Number(press.key);
  const onButton = press.target.tagName === "BUTTON" && press.key === " ";
  if (number >= 1 && number <= setup.classes.length) acts[press.key] = () => answer(setup.classes[number - 1]);
  if (!acts[press.key] || onButton) return;
  press.preventDefault();
  acts[press.key]();
}

async function tried(act) {
  try { complain(null); await act(); } catch (error) { complain(error); }
}

tried(start);
