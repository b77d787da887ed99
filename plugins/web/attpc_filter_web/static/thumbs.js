// Small pictures of events, as the gallery, the comparison and the clusters show them.

import { getEvent, isDark, labeller, make, post, complain, setClassColour } from "./common.js";
import { css, palette, places } from "./colours.js";

const [WIDTH, HEIGHT] = [480, 240];
const MOST_AT_ONCE = 6;

// x-y and, beside it, z against radius.
export function drawThumb(canvas, event, geometry) {
  canvas.width = WIDTH;
  canvas.height = HEIGHT;
  const pen = canvas.getContext("2d");
  const colours = palette(isDark());
  const { radius_mm: radius, length_mm: length, beam_radius_mm: beam } = geometry;
  const half = HEIGHT / 2;
  const unit = (half - 6) / radius;
  pen.strokeStyle = "#8888";
  for (const [r, dash] of [[radius, []], [beam, [4, 3]]]) {
    pen.setLineDash(dash);
    pen.beginPath();
    pen.arc(half, half, r * unit, 0, 2 * Math.PI);
    pen.stroke();
  }
  pen.setLineDash([]);
  const [left, wide, tall] = [HEIGHT + 8, WIDTH - HEIGHT - 14, HEIGHT - 12];
  pen.strokeRect(left, 6, wide, tall);
  const place = places(event, "charge");
  for (let hit = 0; hit < event.n_hits; hit += 1) {
    const [x, y, z] = [event.x[hit], event.y[hit], event.z[hit]];
    pen.fillStyle = css(colours, place[hit]);
    pen.fillRect(half + x * unit - 1.5, half - y * unit - 1.5, 3.5, 3.5);
    const u = left + (wide * z) / length;
    const v = 6 + tall * (1 - Math.hypot(x, y) / radius);
    if (u > left - 4 && u < WIDTH) pen.fillRect(u - 1.5, v - 1.5, 3.5, 3.5);
  }
}

// A tile for an entry of a list: picture and caption.
export function makeTile(entry, setup, captions, onclick) {
  const canvas = make("canvas", { role: "img", "aria-label": `run ${entry.run} event ${entry.event}` });
  const label = make("b", {}, entry.label ?? "");
  const tile = make("button", { class: "tile", "data-row": entry.row, onclick: () => onclick(tile, entry),
    ondblclick: () => { location.href = `/?row=${entry.row}`; } },
    canvas, make("div", { class: "caption" }, make("span", {}, `${entry.run} · ${entry.event}`),
      ...captions.map((text) => make("span", {}, text)), label));
  tile.show = (name) => {
    entry.label = name;
    label.textContent = name;
    setClassColour(tile, setup.classes, name);
  };
  tile.show(entry.label ?? "");
  tile.draw = async () => {
    const event = await getEvent(entry.row);
    drawThumb(canvas, event, setup.geometry);
  };
  return tile;
}

// Draws the tiles' pictures, a few at a time.
export async function drawTiles(tiles) {
  const waiting = [...tiles];
  const work = async () => { while (waiting.length) await waiting.shift().draw(); };
  await Promise.all(Array.from({ length: MOST_AT_ONCE }, work)).catch(complain);
}

// Labels a tile's event; an earlier answer of the same labeller is replaced.
export async function labelTile(tile, entry, label) {
  complain(null);
  if (!labeller()) { complain("Open Label first and say who you are."); return; }
  try {
    await post("/api/answers", { labeller: labeller(), row: entry.row, label, policy: "gallery",
      seconds: 0, scores_shown: true, correction: true });
    tile.show(label);
  } catch (error) { complain(error); }
}

// Buttons for the label that a click gives. Gives a function that says which is chosen.
export function addBrush(box, setup) {
  const none = "look only";
  let chosen = null;
  const buttons = [none, ...setup.classes, setup.unsure].map((name) => {
    const button = make("button", { class: "class", "aria-pressed": String(name === none), onclick: () => {
      chosen = name === none ? null : name;
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    } }, name);
    setClassColour(button, setup.classes, name);
    return button;
  });
  box.replaceChildren(make("span", { class: "soft" }, "A click labels as"), ...buttons,
    make("span", { class: "soft" }, "or keys 1 to 9 and u on the tile in focus; double click opens"));
  return () => chosen;
}

// Keys on a wall: arrows move the focus, digits label.
export function onWallKey(press, wall, setup, act) {
  const tiles = [...wall.querySelectorAll(".tile")];
  const at = tiles.indexOf(document.activeElement);
  const across = tiles.filter((tile) => tile.offsetTop === tiles[0]?.offsetTop).length;
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across };
  if (press.key in moves && tiles.length) {
    tiles[Math.min(Math.max(at < 0 ? 0 : at + moves[press.key], 0), tiles.length - 1)].focus();
    press.preventDefault();
  }
  const number = Number(press.key);
  const label = press.key === "u" ? setup.unsure : setup.classes[number - 1];
  if (at >= 0 && label) act(tiles[at], label);
}
