// The gallery: all events that a filter keeps, as a wall of pictures.

import { byId, complain, get, isForPage, make, showHeader } from "./common.js";
import { addBrush, drawTiles, labelTile, makeTile, onWallKey } from "./thumbs.js";

const PER_PAGE = 24;
let setup;
let brush;
let offset = 0;

async function start() {
  setup = await get("/api/setup");
  showHeader(setup);
  brush = addBrush(byId("brush"), setup);
  byId("filter").value = new URLSearchParams(location.search).get("filter") ?? "";
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    history.replaceState(null, "", `?${new URLSearchParams({ filter: byId("filter").value })}`);
    load(0);
  });
  document.addEventListener("keydown", (press) => {
    if (isForPage(press)) onWallKey(press, byId("wall"), setup, (tile, label) => labelTile(tile, tile.entry, label));
  });
  document.addEventListener("theme", () => drawTiles(byId("wall").children));
  await load(0);
}

async function load(from) {
  try {
    complain(null);
    const found = await get("/api/list", { filter: byId("filter").value, offset: from, limit: PER_PAGE });
    offset = from;
    show(found);
  } catch (error) { complain(error); }
}

function show(found) {
  const tiles = found.events.map((entry) => {
    const captions = [entry.tag && `tag ${entry.tag}`].filter(Boolean);
    const tile = makeTile(entry, setup, captions, (clicked) => {
      if (brush()) labelTile(clicked, entry, brush());
    });
    tile.entry = entry;
    return tile;
  });
  byId("wall").replaceChildren(...tiles);
  const last = offset + tiles.length;
  byId("count").textContent = found.total ? `${offset + 1} to ${last} of ${found.total.toLocaleString("en")} events` : "No event is kept by this filter.";
  byId("pages").replaceChildren(
    make("button", { disabled: offset === 0, onclick: () => load(Math.max(offset - PER_PAGE, 0)) }, "← before"),
    make("button", { disabled: last >= found.total, onclick: () => load(offset + PER_PAGE) }, "after →"));
  drawTiles(tiles);
}

start().catch(complain);
