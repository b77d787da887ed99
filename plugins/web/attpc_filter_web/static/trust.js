// The trust sample: drawn here, answered on the page for labelling, and what it says so far.

import { byId, complain, get, make, post, share, showHeader, table } from "./common.js";

const SVG = "http://www.w3.org/2000/svg";

async function start() {
  showHeader(await get("/api/setup"));
  show(await get("/api/trust"));
}

function show(found) {
  const drawn = found.tags.reduce((sum, { drawn: n }) => sum + n, 0);
  const number = make("input", { type: "number", value: 30, min: 1, max: 10000, "aria-label": "events a tag" });
  const draw = make("button", { class: drawn ? null : "main", onclick: async () => {
    try { complain(null); show(await post("/api/trust", { per_tag: Number(number.value) })); } catch (error) { complain(error); }
  } }, drawn ? "Draw anew" : "Draw the sample");
  const parts = [
    make("p", {}, "Some random events of every tag are labelled without the model's word. From them follow purity and efficiency on these runs, with 95% intervals."),
    make("div", { class: "toolbar" }, number, make("span", {}, "events of each tag"), draw,
      ...(drawn ? [make("a", { href: "/?policy=trust" }, "Label them")] : [])),
    table(["tag", "events", "drawn", "labelled"], found.tags.map((tag) => [tag.tag, tag.events, tag.drawn, tag.labelled])),
  ];
  if (found.classes.length) {
    parts.push(make("h2", {}, "So far"), table(["class", "purity", "", "efficiency", ""], found.classes.map((entry) =>
      [entry.name, text(entry.purity), picture(entry.purity), text(entry.efficiency), picture(entry.efficiency)])),
    make("p", {}, make("a", { href: "/api/sample.csv" }, "sample.csv"), " for attpc-filter trust --labels, which tells it by run too"));
  }
  byId("trust").replaceChildren(...parts);
}

function text(estimate) {
  if (!estimate) return "not yet";
  return `${share(estimate.value, 3)}  (${share(estimate.low, 3)} to ${share(estimate.high, 3)})`;
}

function picture(estimate) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "interval");
  svg.setAttribute("viewBox", "0 0 200 14");
  const add = (tag, entries) => {
    const part = document.createElementNS(SVG, tag);
    Object.entries(entries).forEach(([name, entry]) => part.setAttribute(name, entry));
    svg.append(part);
  };
  const x = (share_) => 5 + 190 * share_;
  add("line", { class: "rail", x1: x(0), x2: x(1), y1: 7, y2: 7 });
  if (estimate) {
    add("line", { class: "span", x1: x(estimate.low), x2: x(estimate.high), y1: 7, y2: 7 });
    add("circle", { cx: x(estimate.value), cy: 7, r: 4 });
  }
  return svg;
}

start().catch(complain);
