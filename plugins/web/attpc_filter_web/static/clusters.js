// Clusters of attpc-export: the typical events of each, and its name.

import { byId, complain, get, make, post, setClassColour, showHeader } from "./common.js";
import { drawTiles, makeTile } from "./thumbs.js";

async function start() {
  const setup = await get("/api/setup");
  showHeader(setup);
  const clusters = await get("/api/clusters");
  if (!clusters.length) {
    byId("clusters").append(make("p", {}, "Start attpc-filter label with --clusters DIR, a folder of attpc-export find-clusters."));
    return;
  }
  const tiles = [];
  for (const cluster of clusters) {
    const names = setup.classes.map((name) => {
      const button = make("button", { class: "class", "aria-pressed": String(name === cluster.name), onclick: async () => {
        try {
          await post("/api/clusters", { cluster: cluster.cluster, name });
          names.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
        } catch (error) { complain(error); }
      } }, name);
      setClassColour(button, setup.classes, name);
      return button;
    });
    const own = cluster.events.map((entry) => makeTile(entry, setup, [entry.tag], () => { location.href = `/?row=${entry.row}`; }));
    tiles.push(...own);
    byId("clusters").append(
      make("h2", {}, `Cluster ${cluster.cluster}: ${cluster.size.toLocaleString("en")} events`),
      make("div", { class: "toolbar" }, make("span", { class: "soft" }, "is"), ...names),
      make("div", { class: "wall" }, ...own));
  }
  await drawTiles(tiles);
}

start().catch(complain);
