// The event seen from three sides: x-y with pads to scale, z against radius, and in space. Hits and
// pads are drawn by WebGL2 from one buffer of float32; frames, axes and marks by a canvas above it.

import { isDark, make } from "./common.js";
import { palette, places, css, range } from "./colours.js";

const HIT_SHADER = `#version 300 es
precision highp float;
precision highp int;
uniform int mode;        // 0: triangles in x-y, 1: points in x-y, 2: z-r, 3: space
uniform vec4 frame;      // centre and half widths of the panel [mm]
uniform vec2 turn;       // angles of the view in space
uniform float size;      // of a point [pixels]
uniform float middle;    // half length [mm]
uniform float noise;     // 0: hide, 1: mark, 2: as others
in float x, y, z, place, signal;
out float v_place;
out float v_noise;
void main() {
  v_place = place;
  v_noise = signal > 0.5 || noise > 1.5 ? 0.0 : 1.0;
  gl_PointSize = size;
  vec2 at = vec2(x, y);
  float depth = 0.0;
  if (mode == 2) {
    at = vec2(z, length(at));
  } else if (mode == 3) {
    vec3 p = vec3(z - middle, at);
    float cy = cos(turn.x), sy = sin(turn.x), cp = cos(turn.y), sp = sin(turn.y);
    vec3 q = vec3(cy * p.x + sy * p.z, p.y, cy * p.z - sy * p.x);
    at = vec2(q.x, cp * q.y - sp * q.z);
    depth = -(sp * q.y + cp * q.z) / 2000.0;
  }
  bool hide = v_noise > 0.5 && noise < 0.5;
  gl_Position = hide ? vec4(2.0, 2.0, 2.0, 1.0) : vec4((at - frame.xy) / frame.zw, depth, 1.0);
}`;
const COLOUR_SHADER = `#version 300 es
precision highp float;
precision highp int;
uniform sampler2D colours;
uniform vec4 faint;
uniform float plain;     // 1: in one faint colour
uniform int mode;
in float v_place;
in float v_noise;
out vec4 colour;
void main() {
  if (plain > 0.5) { colour = faint; return; }
  vec2 from = gl_PointCoord - 0.5;
  float r = length(from);
  if (mode != 0 && r > 0.5) discard;
  colour = texture(colours, vec2(v_place, 0.5));
  if (v_noise > 0.5) {
    if (mode != 0 && r < 0.28) discard;
    colour = vec4(mix(colour.rgb, vec3(0.55), 0.75), 0.6);
  }
  colour.rgb *= colour.a;
}`;
const ATTRIBUTES = ["x", "y", "z", "place", "signal"];
const UNIFORMS = ["mode", "frame", "turn", "size", "middle", "noise", "plain", "colours", "faint"];
const NEAR_PIXELS = 12;
// Outlines of single pads are drawn from this magnification on.
const OUTLINE_FROM = 1.9;
export const NOISE_MODES = ["mark", "hide", "show"];

export class EventView {
  // box: the element to fill; geometry: from the setup; pads: corners, eight numbers a pad
  constructor(box, geometry, pads) {
    this.geometry = geometry;
    this.pads = pads;
    this.event = null;
    this.by = "charge";
    this.noise = "mark";
    this.chosen = -1;
    this.hovered = -1;
    this.waiting = false;
    this.onchoose = () => {};
    this.turn = [-0.6, 0.35];
    this.zoom = { xy: this.home("xy"), zr: this.home("zr") };
    this.gl_canvas = make("canvas", { class: "gl", "aria-hidden": "true" });
    this.ink = make("canvas", { class: "ink", role: "img", "aria-label": "hits of the event" });
    this.tip = make("div", { class: "tip", hidden: true });
    box.replaceChildren(this.gl_canvas, this.ink, this.tip);
    this.box = box;
    this.prepare();
    new ResizeObserver(() => this.draw()).observe(box);
    document.addEventListener("theme", () => { this.paint(); this.draw(); });
    this.listen();
  }

  home(panel) {
    const { radius_mm: radius, length_mm: length } = this.geometry;
    if (panel === "xy") return { x: 0, y: 0, scale: 1, half: radius * 1.06 };
    return { x: length * 0.49, y: radius * 0.45, scale: 1, half: [length * 0.57, radius * 0.66] };
  }

  prepare() {
    const gl = this.gl_canvas.getContext("webgl2", { antialias: false, alpha: true });
    if (!gl) throw new Error("This browser has no WebGL2; take a newer one, or switch it on.");
    this.gl = gl;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, HIT_SHADER], [gl.FRAGMENT_SHADER, COLOUR_SHADER]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    ATTRIBUTES.forEach((name, index) => gl.bindAttribLocation(program, index, name));
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    this.at = Object.fromEntries(UNIFORMS.map((name) => [name, gl.getUniformLocation(program, name)]));
    gl.uniform1i(this.at.colours, 0);
    // triangles have their third corner twice
    this.corners = this.pads.every((value, i) => i % 8 < 6 || value === this.pads[i - 2]) ? [0, 1, 2] : [0, 1, 2, 0, 2, 3];
    const all = Float32Array.from({ length: this.pads.length / 8 }, (_, pad) => pad);
    this.buffers = { plane: gl.createBuffer(), edges: gl.createBuffer(), points: gl.createBuffer(), onPads: gl.createBuffer() };
    this.counts = { plane: 0, edges: 0, points: 0, onPads: 0 };
    this.fill("plane", this.trianglesOf(all, this.corners));
    this.fill("edges", this.trianglesOf(all, this.corners.length === 3 ? [0, 1, 1, 2, 2, 0] : [0, 1, 1, 2, 2, 3, 3, 0]));
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.enable(gl.SCISSOR_TEST);
    this.paint();
  }

  // Columns of the corners of some pads, in the order of ATTRIBUTES; more: columns a pad.
  trianglesOf(pads, corners, more = {}) {
    const n = pads.length * corners.length;
    const columns = Object.fromEntries(ATTRIBUTES.map((name) => [name, new Float32Array(n)]));
    for (let i = 0, at = 0; i < pads.length; i += 1) {
      for (const corner of corners) {
        const from = 8 * pads[i] + 2 * corner;
        columns.x[at] = this.pads[from];
        columns.y[at] = this.pads[from + 1];
        columns.place[at] = more.place ? more.place[i] : 0;
        columns.signal[at] = more.signal ? more.signal[i] : 1;
        at += 1;
      }
    }
    return columns;
  }

  // Puts columns into a buffer, one after the other.
  fill(name, columns) {
    const gl = this.gl;
    const n = columns.x.length;
    const content = new Float32Array(ATTRIBUTES.length * n);
    ATTRIBUTES.forEach((attribute, index) => content.set(columns[attribute], index * n));
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
    gl.bufferData(gl.ARRAY_BUFFER, content, gl.DYNAMIC_DRAW);
    this.counts[name] = n;
  }

  // Takes the colours of the theme.
  paint() {
    const gl = this.gl;
    this.colours = palette(isDark());
    gl.deleteTexture(this.texture);
    this.texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, this.colours);
    for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) {
      gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
    }
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) {
      gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
    }
  }

  setEvent(event) {
    this.event = event;
    this.chosen = -1;
    this.hover(-1);
    this.upload();
    this.draw();
  }

  setColour(by) { this.by = by; this.upload(); this.draw(); }
  setNoise(mode) { this.noise = mode; this.draw(); }

  upload() {
    if (!this.event) return;
    const { x, y, z, signal, pad } = this.event;
    const place = places(this.event, this.by);
    this.fill("points", { x, y, z, place, signal });
    const known = [...pad.keys()].filter((hit) => pad[hit] >= 0);
    const of = (column) => Float32Array.from(known, (hit) => column[hit]);
    this.fill("onPads", this.trianglesOf(of(pad), this.corners, { place: of(place), signal: of(signal) }));
  }

  panels() {
    const [w, h] = [this.box.clientWidth, this.box.clientHeight];
    const side = Math.max(Math.min(h, w * 0.56), 60);
    const x = side + 4;
    const split = Math.round(h * 0.44);
    return {
      xy: { x: 0, y: Math.max((h - side) / 2, 0), w: side, h: side },
      zr: { x, y: 0, w: w - x, h: split },
      space: { x, y: split, w: w - x, h: h - split },
    };
  }

  // Centre and half widths of what a panel shows [mm].
  frame(name, panel) {
    if (name === "space") {
      const { radius_mm: radius, length_mm: length } = this.geometry;
      const half = Math.hypot(length / 2, radius) * 1.02;
      const scale = Math.max(half / (panel.w / 2), (radius * 1.55) / (panel.h / 2));
      return [0, 0, (scale * panel.w) / 2, (scale * panel.h) / 2];
    }
    const { x, y, scale, half } = this.zoom[name];
    const [a, b] = Array.isArray(half) ? half : [half, half];
    return [x, y, a / scale, b / scale];
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [this.box.clientWidth, this.box.clientHeight];
    if (!w || !h) return;
    for (const canvas of [this.gl_canvas, this.ink]) {
      if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
        canvas.width = Math.round(w * ratio);
        canvas.height = Math.round(h * ratio);
      }
    }
    const gl = this.gl;
    gl.scissor(0, 0, this.gl_canvas.width, this.gl_canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clearDepth(1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const panels = this.panels();
    for (const [name, panel] of Object.entries(panels)) this.drawPanel(name, panel, ratio, h);
    this.drawInk(panels, ratio);
  }

  // Draws once a frame, however often the mouse moves.
  drawSoon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  drawPanel(name, panel, ratio, height) {
    const { gl, at, event } = this;
    const box = [panel.x, height - panel.y - panel.h, panel.w, panel.h].map((v) => Math.round(v * ratio));
    gl.viewport(...box);
    gl.scissor(...box);
    gl.uniform4f(at.frame, ...this.frame(name, panel));
    gl.uniform2f(at.turn, ...this.turn);
    gl.uniform1f(at.middle, this.geometry.length_mm / 2);
    gl.uniform1f(at.noise, { hide: 0, mark: 1, show: 2 }[this.noise]);
    gl.uniform1f(at.size, Math.max(4, Math.min(panel.w, panel.h) / 75) * ratio);
    if (name === "xy") {
      gl.uniform1i(at.mode, 0);
      gl.uniform1f(at.plain, 1);
      gl.uniform4f(at.faint, ...(isDark() ? [0.1, 0.115, 0.14, 1] : [0.945, 0.95, 0.96, 1]));
      this.drawBuffer("plane", gl.TRIANGLES);
      gl.uniform4f(at.faint, ...(isDark() ? [0.2, 0.23, 0.28, 1] : [0.82, 0.84, 0.87, 1]));
      if (this.zoom.xy.scale >= OUTLINE_FROM) this.drawBuffer("edges", gl.LINES);
      gl.uniform1f(at.plain, 0);
      if (event) this.drawBuffer("onPads", gl.TRIANGLES);
      if (!event || this.counts.onPads === this.corners.length * event.n_hits) return;
    }
    if (!event) return;
    gl.uniform1i(at.mode, { xy: 1, zr: 2, space: 3 }[name]);
    if (name === "space") gl.enable(gl.DEPTH_TEST);
    this.drawBuffer("points", gl.POINTS);
    gl.disable(gl.DEPTH_TEST);
  }

  drawBuffer(name, kind) {
    const gl = this.gl;
    const n = this.counts[name];
    if (!n) return;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
    ATTRIBUTES.forEach((_, index) => {
      gl.enableVertexAttribArray(index);
      gl.vertexAttribPointer(index, 1, gl.FLOAT, false, 0, 4 * n * index);
    });
    gl.drawArrays(kind, 0, n);
  }

  // Where points of the detector lie in a panel [CSS pixels].
  project(name, panel, x, y, z) {
    let u; let v;
    if (name === "xy") [u, v] = [x, y];
    else if (name === "zr") [u, v] = [z, Math.hypot(x, y)];
    else {
      const p = z - this.geometry.length_mm / 2;
      const [cy, sy] = [Math.cos(this.turn[0]), Math.sin(this.turn[0])];
      const [cp, sp] = [Math.cos(this.turn[1]), Math.sin(this.turn[1])];
      u = cy * p + sy * y;
      v = cp * x - sp * (cy * y - sy * p);
    }
    const [a, b, c, d] = this.frame(name, panel);
    return [panel.x + (panel.w / 2) * (1 + (u - a) / c), panel.y + (panel.h / 2) * (1 - (v - b) / d)];
  }

  drawInk(panels, ratio) {
    const pen = this.ink.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const [ink, soft, line, accent] = ["--ink", "--soft", "--line", "--accent"].map((name) =>
      style.getPropertyValue(name).trim());
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, this.box.clientWidth, this.box.clientHeight);
    pen.font = `12px ${getComputedStyle(this.box).fontFamily}`;
    for (const [name, panel] of Object.entries(panels)) {
      pen.save();
      pen.beginPath();
      pen.rect(panel.x, panel.y, panel.w, panel.h);
      pen.clip();
      pen.lineWidth = 1;
      if (name === "space") this.drawCylinder(pen, panel, line, soft);
      else this.drawAxes(pen, name, panel, soft, line, accent);
      for (const [hit, colour] of [[this.hovered, soft], [this.chosen, accent]]) {
        if (hit >= 0) this.ring(pen, name, panel, hit, colour);
      }
      pen.restore();
    }
    this.drawLegend(pen, panels.xy, soft, ink);
    if (this.event && this.event.reason) {
      pen.fillStyle = ink;
      pen.fillText(this.event.reason, panels.xy.x + 40, panels.xy.y + panels.xy.h / 2);
    }
  }

  // Where a hit is drawn [mm]: in x-y on its pad, else where it is in the frame that models know.
  place(name, hit) {
    const { x, y, z, pad } = this.event;
    if (name !== "xy" || pad[hit] < 0) return [x[hit], y[hit], z[hit]];
    const at = 8 * pad[hit];
    const c = this.pads;
    return [(c[at] + c[at + 2] + c[at + 4] + c[at + 6]) / 4, (c[at + 1] + c[at + 3] + c[at + 5] + c[at + 7]) / 4, 0];
  }

  ring(pen, name, panel, hit, colour) {
    const [u, v] = this.project(name, panel, ...this.place(name, hit));
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(u, v, 8, 0, 2 * Math.PI);
    pen.stroke();
  }

  drawAxes(pen, name, panel, soft, line, accent) {
    const { radius_mm: radius, beam_radius_mm: beam, length_mm: length, field_t: field } = this.geometry;
    const at = (x, y, z) => this.project(name, panel, x, y, z);
    const [a, b, c, d] = this.frame(name, panel);
    pen.strokeStyle = soft;
    pen.fillStyle = soft;
    if (name === "xy") {
      const unit = panel.w / 2 / c;
      const [u, v] = at(0, 0, 0);
      this.circle(pen, u, v, radius * unit, []);
      pen.strokeStyle = accent;
      if (beam) this.circle(pen, u, v, beam * unit, [4, 3]);
      if (field) this.drawField(pen, panel, field);
    } else {
      const [left, top] = at(radius, 0, 0);
      const [right, bottom] = at(0, 0, length);
      pen.strokeRect(left, top, right - left, bottom - top);
      const [, edge] = at(beam, 0, 0);
      pen.strokeStyle = accent;
      pen.setLineDash([4, 3]);
      pen.beginPath();
      pen.moveTo(left, edge);
      pen.lineTo(right, edge);
      if (beam) pen.stroke();
      pen.setLineDash([]);
    }
    pen.strokeStyle = line;
    const labels = name === "xy" ? ["x [mm]", "y [mm]"] : ["z [mm]", "radius [mm]"];
    for (const value of ticks(a - c, a + c)) {
      const u = panel.x + (panel.w / 2) * (1 + (value - a) / c);
      if (u < panel.x + 40 || u > panel.x + panel.w - 62) continue;
      pen.fillRect(u, panel.y + panel.h - 5, 1, 5);
      pen.textAlign = "center";
      pen.fillText(String(value), u, panel.y + panel.h - 8);
    }
    for (const value of ticks(b - d, b + d)) {
      const v = panel.y + (panel.h / 2) * (1 - (value - b) / d);
      if (v < panel.y + 20 || v > panel.y + panel.h - 26) continue;
      pen.fillRect(panel.x, v, 5, 1);
      pen.textAlign = "left";
      pen.fillText(String(value), panel.x + 8, v + 4);
    }
    pen.textAlign = "right";
    pen.fillText(labels[0], panel.x + panel.w - 6, panel.y + panel.h - 8);
    pen.textAlign = "left";
    pen.fillText(labels[1], panel.x + 8, panel.y + 14);
  }

  circle(pen, x, y, r, dash) {
    pen.setLineDash(dash);
    pen.beginPath();
    pen.arc(x, y, r, 0, 2 * Math.PI);
    pen.stroke();
    pen.setLineDash([]);
  }

  // The sense of the field. In the frame that models know it points away from the reader, so that
  // positive ions turn counter-clockwise; hits of a reversed field were mirrored into that frame.
  drawField(pen, panel, field) {
    const [u, v] = [panel.x + 20, panel.y + panel.h - 44];
    this.circle(pen, u, v, 8, []);
    pen.beginPath();
    for (const s of [-1, 1]) { pen.moveTo(u - 5, v - 5 * s); pen.lineTo(u + 5, v + 5 * s); }
    pen.stroke();
    const text = `B ${Math.abs(field)} T`;
    pen.fillText(this.geometry.is_mirrored ? `${text}, reversed: y is mirrored` : text, u + 14, v + 4);
  }

  drawCylinder(pen, panel, line, soft) {
    const { radius_mm: radius, length_mm: length } = this.geometry;
    pen.strokeStyle = soft;
    pen.globalAlpha = 0.55;
    for (const z of [0, length]) {
      pen.beginPath();
      for (let step = 0; step <= 64; step += 1) {
        const angle = (step / 64) * 2 * Math.PI;
        pen.lineTo(...this.project("space", panel, radius * Math.cos(angle), radius * Math.sin(angle), z));
      }
      pen.stroke();
    }
    pen.beginPath();
    for (const angle of [0, 0.25, 0.5, 0.75]) {
      const [x, y] = [radius * Math.cos(2 * Math.PI * angle), radius * Math.sin(2 * Math.PI * angle)];
      pen.moveTo(...this.project("space", panel, x, y, 0));
      pen.lineTo(...this.project("space", panel, x, y, length));
    }
    pen.stroke();
    pen.globalAlpha = 1;
    pen.setLineDash([4, 3]);
    pen.beginPath();
    pen.moveTo(...this.project("space", panel, 0, 0, 0));
    pen.lineTo(...this.project("space", panel, 0, 0, length));
    pen.stroke();
    pen.setLineDash([]);
    pen.fillStyle = soft;
    pen.textAlign = "center";
    for (const [z, text] of [[0, "window"], [length, "pads"]]) {
      const [u, v] = this.project("space", panel, -radius * 1.12, 0, z);
      pen.fillText(text, u, Math.min(v + 6, panel.y + panel.h - 4));
    }
    pen.textAlign = "left";
  }

  drawLegend(pen, panel, soft, ink) {
    if (!this.event) return;
    const [w, x, y] = [Math.min(130, panel.w / 3), panel.x + panel.w - Math.min(130, panel.w / 3) - 8, panel.y + 6];
    for (let step = 0; step < w; step += 1) {
      pen.fillStyle = css(this.colours, step / w);
      pen.fillRect(x + step, y, 1.5, 8);
    }
    const [low, high] = range(this.event, this.by);
    pen.fillStyle = soft;
    pen.textAlign = "left";
    pen.fillText(String(Math.round(low)), x, y + 21);
    pen.textAlign = "right";
    pen.fillText(String(Math.round(high)), x + w, y + 21);
    pen.textAlign = "center";
    pen.fillStyle = ink;
    pen.fillText(this.by === "time" ? "bucket" : "charge", x + w / 2, y + 21);
    pen.textAlign = "left";
  }

  // The hit nearest to a place of the canvas, -1 if none is near.
  nearest(px, py) {
    if (!this.event) return -1;
    const panels = this.panels();
    const name = Object.keys(panels).find((key) => inside(panels[key], px, py));
    if (!name) return -1;
    const { n_hits: n, signal } = this.event;
    let [best, distance] = [-1, NEAR_PIXELS ** 2];
    for (let hit = 0; hit < n; hit += 1) {
      if (this.noise === "hide" && !signal[hit]) continue;
      const [u, v] = this.project(name, panels[name], ...this.place(name, hit));
      const d = (u - px) ** 2 + (v - py) ** 2;
      if (d <= distance) [best, distance] = [hit, d];
    }
    return best;
  }

  hover(hit, px = 0, py = 0) {
    if (hit !== this.hovered) {
      this.hovered = hit;
      this.drawInk(this.panels(), window.devicePixelRatio || 1);  // the hits stay as they are
    }
    this.tip.hidden = hit < 0;
    if (hit < 0) return;
    this.tip.textContent = this.describe(hit);
    const left = px + 16 + this.tip.offsetWidth > this.box.clientWidth;
    this.tip.style.left = `${left ? px - 12 - this.tip.offsetWidth : px + 16}px`;
    this.tip.style.top = `${Math.min(py + 12, this.box.clientHeight - this.tip.offsetHeight - 2)}px`;
  }

  describe(hit) {
    const { pad, charge, time_bucket: bucket, x, y, z, signal } = this.event;
    const place = [x, y, z].map((column) => column[hit].toFixed(0)).join(", ");
    return `pad ${pad[hit] < 0 ? "unknown" : pad[hit]}   charge ${charge[hit].toFixed(0)}   ` +
      `bucket ${bucket[hit].toFixed(1)}\nx, y, z ${place} mm${signal[hit] ? "" : "   noise"}`;
  }

  choose(hit) {
    this.chosen = hit;
    this.draw();
    this.onchoose(hit);
  }

  // Goes to the next weaker (-1) or stronger (1) hit; the first one is the strongest.
  step(direction) {
    if (!this.event || !this.event.n_hits) return;
    const n = this.event.n_hits;
    const next = this.chosen < 0 ? n - 1 : this.chosen + direction;
    this.choose(Math.min(Math.max(next, 0), n - 1));
  }

  rotate(dx, dy) {
    this.turn = [this.turn[0] + dx, Math.min(Math.max(this.turn[1] + dy, -1.57), 1.57)];
    this.drawSoon();
  }

  magnify(factor, name = "xy", px = null, py = null) {
    const zoom = this.zoom[name];
    const panel = this.panels()[name];
    const scale = Math.min(Math.max(zoom.scale * factor, 1), 60);
    if (px !== null) {
      const [a, b, c, d] = this.frame(name, panel);
      const [u, v] = [(px - panel.x) / (panel.w / 2) - 1, 1 - (py - panel.y) / (panel.h / 2)];
      zoom.x = a + u * c * (1 - zoom.scale / scale);
      zoom.y = b + v * d * (1 - zoom.scale / scale);
    }
    zoom.scale = scale;
    if (scale === 1) this.zoom[name] = this.home(name);
    this.drawSoon();
  }

  reset() {
    this.zoom = { xy: this.home("xy"), zr: this.home("zr") };
    this.turn = [-0.6, 0.35];
    this.draw();
  }

  listen() {
    const ink = this.ink;
    const place = (event) => {
      const box = ink.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    let drag = null;
    ink.addEventListener("pointerdown", (event) => {
      const [x, y] = place(event);
      const panels = this.panels();
      drag = { x, y, moved: false, name: Object.keys(panels).find((key) => inside(panels[key], x, y)) };
      ink.setPointerCapture(event.pointerId);
    });
    ink.addEventListener("pointermove", (event) => {
      const [x, y] = place(event);
      if (!drag) { this.hover(this.nearest(x, y), x, y); return; }
      const [dx, dy] = [x - drag.x, y - drag.y];
      if (!drag.moved && Math.hypot(dx, dy) < 4) return;
      Object.assign(drag, { x, y, moved: true });
      if (drag.name === "space") this.rotate(dx / 150, dy / 150);
      else if (drag.name) this.shift(drag.name, dx, dy);
    });
    ink.addEventListener("pointerup", (event) => {
      const [x, y] = place(event);
      if (drag && !drag.moved) {
        const hit = this.nearest(x, y);
        if (hit >= 0) this.choose(hit);
      }
      drag = null;
    });
    ink.addEventListener("pointerleave", () => this.hover(-1));
    ink.addEventListener("dblclick", () => this.reset());
    ink.addEventListener("wheel", (event) => {
      event.preventDefault();
      const [x, y] = place(event);
      const panels = this.panels();
      const name = ["xy", "zr"].find((key) => inside(panels[key], x, y));
      if (name) this.magnify(Math.exp(-event.deltaY / 400), name, x, y);
    }, { passive: false });
  }

  shift(name, dx, dy) {
    const panel = this.panels()[name];
    const [, , c, d] = this.frame(name, panel);
    this.zoom[name].x -= (dx / (panel.w / 2)) * c;
    this.zoom[name].y += (dy / (panel.h / 2)) * d;
    this.drawSoon();
  }
}

function inside(panel, x, y) {
  return x >= panel.x && y >= panel.y && x < panel.x + panel.w && y < panel.y + panel.h;
}

// Round numbers between two, five to seven of them.
export function ticks(low, high) {
  const rough = (high - low) / 7;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
    found.push(Number(value.toPrecision(6)));
  }
  return found;
}
