// The trace of a pad: samples, baseline, and a mark at each peak that became a hit.

import { ticks } from "./view.js";

export function drawTrace(canvas, trace, text, bucket = null) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = Math.round(w * ratio);
  canvas.height = Math.round(h * ratio);
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  pen.scale(ratio, ratio);
  pen.font = `12px ${getComputedStyle(canvas).fontFamily}`;
  pen.fillStyle = colour("--soft");
  pen.fillText(text, 46, 15);
  if (!trace) return;
  const all = [...trace.samples.flat(), ...trace.baselines.flat()];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const pad = Math.max((high - low) * 0.12, 5);
  const n = trace.samples[0].length;
  const x = (sample) => 44 + ((w - 54) * sample) / (n - 1);
  const y = (value) => 20 + ((h - 38) * (high + pad - value)) / (high - low + 2 * pad);
  for (const value of ticks(low - pad, high + pad)) {
    pen.textAlign = "right";
    pen.fillText(String(value), 38, y(value) + 4);
    pen.fillRect(41, y(value), 4, 1);
  }
  for (const value of ticks(0, n)) {
    pen.textAlign = "center";
    pen.fillText(String(value), x(value), h - 3);
    pen.fillRect(x(value), h - 17, 1, 4);
  }
  const path = (values, stroke, width, dash) => {
    pen.strokeStyle = stroke;
    pen.lineWidth = width;
    pen.setLineDash(dash);
    pen.beginPath();
    values.forEach((value, sample) => pen.lineTo(x(sample), y(value)));
    pen.stroke();
    pen.setLineDash([]);
  };
  trace.peaks.forEach((peak) => {  // a wedge above the peak, filled for the chosen hit
    const sample = Math.min(Math.max(Math.round(peak), 0), n - 1);
    const top = y(Math.max(...trace.samples.map((values) => values[sample]))) - 3;
    pen.strokeStyle = pen.fillStyle = colour("--accent");
    pen.lineWidth = 1.5;
    pen.beginPath();
    for (const [dx, dy] of [[0, 0], [-5, -9], [5, -9]]) pen.lineTo(x(peak) + dx, Math.max(top, 30) + dy);
    pen.closePath();
    if (bucket !== null && Math.abs(peak - bucket) < 0.05) pen.fill();
    pen.stroke();
  });
  trace.samples.forEach((values, index) => {
    path(trace.baselines[index], colour("--soft"), 1, [5, 3]);
    path(values, colour("--ink"), 1.3, []);
  });
}
