// How far labellers agree, where they do not, and the way to settle it.

import { byId, complain, get, make, share, showHeader, table } from "./common.js";

async function start() {
  showHeader(await get("/api/setup"));
  const found = await get("/api/agreement");
  const box = byId("agreement");
  if (!found.labellers.length) { box.append(make("p", {}, "No answers yet.")); return; }
  box.append(
    table(["labeller", "answers", "unsure", "median seconds"],
      found.labellers.map(({ name, answers, unsure, seconds }) => [name, answers, unsure, share(seconds, 1)])),
    make("h2", {}, "Between labellers"),
    make("p", {}, "Krippendorff's alpha ", make("b", { id: "alpha" }, share(found.alpha, 3)),
      make("span", { class: "soft" }, "  1: full agreement, 0: as by chance; unsure is left out")));
  if (found.pairs.length) box.append(pairs(found.pairs));
  box.append(make("h2", {}, "Within labellers: events shown again"));
  box.append(found.within.length ? pairs(found.within) : make("p", { class: "soft" }, "None yet."));
  box.append(make("h2", {}, `To settle: ${found.n_disagreements}`),
    make("p", {}, make("a", { href: "/?policy=settle" }, "Settle them one by one"),
      make("span", { class: "soft" }, `  ${found.n_settled} are settled`)));
  if (found.disagreements.length) {
    box.append(table(["event", "who said what"], found.disagreements.map(({ row, run, event, said }) => [
      row === null ? `${run} · ${event}` : make("a", { href: `/?row=${row}` }, `${run} · ${event}`),
      Object.entries(said).map(([name, label]) => `${name}: ${label}`).join(",  "),
    ])));
  }
  box.append(make("h2", {}, "Take the labels along"), make("p", {},
    make("a", { href: "/api/labels.csv" }, "labels.csv"), " for attpc-export --labels: what the majority says; or ",
    make("a", { href: "/api/labels.csv?by=1&unsure=1" }, "with unsure and a column a labeller")));
}

function pairs(list) {
  return table(["labellers", "events", "same", "Cohen's kappa", "confused"], list.map((pair) => [
    pair.a === pair.b ? pair.a : `${pair.a} and ${pair.b}`, pair.n_events, share(pair.share),
    share(pair.kappa, 3), pair.confused.map(([a, b, n]) => `${a} / ${b}: ${n}`).join(",  "),
  ]));
}

start().catch(complain);
