// Two taggings: how many events have which tags, and the events that flipped.

import { byId, complain, get, make, share, showHeader, table } from "./common.js";
import { drawTiles, makeTile } from "./thumbs.js";

const PER_PAGE = 24;
let setup;
let found;
let cell = null;

async function start() {
  setup = await get("/api/setup");
  showHeader(setup);
  found = await get("/api/compare");
  if (!found.matrix) { byId("count").textContent = "Start attpc-filter label with --compare DIR."; return; }
  const rows = found.a.map((a, i) => [a, ...found.b.map((b, j) => {
    const n = found.matrix[i][j];
    if (a === b || !n) return n;
    return make("button", { onclick: () => { cell = [a, b]; show(0); } }, String(n));
  })]);
  byId("matrix").replaceChildren(table(["here ↓ there →", ...found.b], rows));
  show(0);
}

function show(offset) {
  const flips = found.flips.filter(({ tag_a: a, tag_b: b }) => !cell || (a === cell[0] && b === cell[1]));
  const tiles = flips.slice(offset, offset + PER_PAGE).map((flip) => {
    const tile = makeTile(flip, setup, [`${flip.tag_a} → ${flip.tag_b}`], () => { location.href = `/?row=${flip.row}`; });
    const bars = Object.keys({ ...flip.scores_a, ...flip.scores_b }).map((name) =>
      [name, share(flip.scores_a[name]), share(flip.scores_b[name])]);
    if (bars.length) tile.append(table(["score", "here", "there"], bars));
    return tile;
  });
  byId("wall").replaceChildren(...tiles);
  const which = cell ? `from ${cell[0]} to ${cell[1]}` : "with another tag";
  byId("count").textContent = `${flips.length.toLocaleString("en")} events ${which}`;
  byId("pages").replaceChildren(
    make("button", { disabled: offset === 0, onclick: () => show(offset - PER_PAGE) }, "← before"),
    make("button", { disabled: offset + PER_PAGE >= flips.length, onclick: () => show(offset + PER_PAGE) }, "after →"));
  drawTiles(tiles);
}

start().catch(complain);
