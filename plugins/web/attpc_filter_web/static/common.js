// What all pages share: requests, the header, the theme, small builders.

const PAGES = [
  ["/", "Label"], ["/gallery", "Gallery"], ["/compare", "Compare"], ["/clusters", "Clusters"],
  ["/agreement", "Agreement"], ["/trust", "Trust"],
];
// Okabe and Ito's colours, which people with colour blindness tell apart.
const CLASS_COLOURS = [
  "#d55e00", "#0072b2", "#7f7f7f", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#9467bd",
];

export function byId(id) { return document.getElementById(id); }

// An element with attributes and children. Texts become text nodes: names from files cannot be
// anything else.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function setClassColour(element, classes, label) {
  const index = classes.indexOf(label);
  if (index < 0) element.style.removeProperty("--class");
  else element.style.setProperty("--class", CLASS_COLOURS[index % CLASS_COLOURS.length]);
}

export function complain(error) {
  byId("message").textContent = error ? String(error.message ?? error) : "";
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Start attpc-filter label again; nothing is lost.");
  }
  if (response.ok) return response;
  const text = await response.text();
  let reason = text;
  try { reason = JSON.parse(text).error; } catch { /* a plain line */ }
  throw new Error(reason || `the server answered ${response.status}`);
}

export async function get(path, query = {}) {
  const text = new URLSearchParams(query).toString();
  return (await request(text ? `${path}?${text}` : path)).json();
}

export async function post(path, body) {
  const headers = { "content-type": "application/json", "x-attpc-filter": "1" };
  return (await request(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

// The corners of every pad: x, y of four corners a pad [mm].
export async function getPads() {
  return new Float32Array(await (await request("/api/pads")).arrayBuffer());
}

// An event: the header's entries, and a Float32Array a column.
export async function getEvent(row) {
  const buffer = await (await request(`/api/events/${row}`)).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const event = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const n = event.n_hits;
  event.columns.forEach((name, index) => {
    event[name] = new Float32Array(buffer, 4 + length + 4 * n * index, n);
  });
  return event;
}

export function labeller() { return localStorage.getItem("labeller") ?? ""; }
export function setLabeller(name) { localStorage.setItem("labeller", name); }

export function isDark() { return document.documentElement.dataset.theme === "dark"; }

export function toggleTheme() {
  localStorage.setItem("theme", isDark() ? "light" : "dark");
  applyTheme();
}

function applyTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = localStorage.getItem("theme") ?? (dark ? "dark" : "light");
  document.dispatchEvent(new Event("theme"));
}

// Fills the header. Pages that have nothing to show are left out.
export function showHeader(setup, ...more) {
  const left = { "/compare": setup.has_comparison, "/clusters": setup.has_clusters,
    "/trust": setup.tags.length > 0 };
  const links = PAGES.filter(([path]) => left[path] !== false).map(([path, name]) =>
    make("a", { href: path, "aria-current": path === location.pathname ? "page" : null }, name));
  const events = setup.n_events.toLocaleString("en");
  byId("header").replaceChildren(
    make("nav", { "aria-label": "pages" }, ...links),
    make("span", { class: "gap" }),
    make("span", { class: "facts" },
      `${events} events, ${setup.n_runs} run${setup.n_runs === 1 ? "" : "s"}, model ${setup.model}`),
    ...more,
    make("button", { onclick: toggleTheme, title: "light or dark (d)" }, "◐"),
  );
}

export function table(head, rows) {
  const cell = (tag) => (content) =>
    make(tag, { class: typeof content === "number" ? "number" : null },
      content instanceof Node ? content : String(content));
  return make("table", {},
    make("thead", {}, make("tr", {}, ...head.map(cell("th")))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell("td"))))));
}

export function share(value, digits = 2) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

// Whether a key press is for the page, not for a field or a dialog.
export function isForPage(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  if (document.querySelector("dialog[open]")) return false;
  return !["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
}

applyTheme();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
