// Colours of numbers: a path through OKLab on which lightness grows evenly, from violet over green to
// yellow. People with any kind of colour blindness see it in the same order. On dark paper strong
// hits are bright, on light paper they are dark.

const STEPS = 256;

function fromOklab(lightness, a, b) {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return linear.map((value) => {
    const cut = Math.min(Math.max(value, 0), 1);
    return Math.round(255 * (cut <= 0.0031308 ? 12.92 * cut : 1.055 * cut ** (1 / 2.4) - 0.055));
  });
}

// 256 colours, RGBA, from weak to strong.
export function palette(dark) {
  const table = new Uint8Array(4 * STEPS);
  for (let step = 0; step < STEPS; step += 1) {
    const t = step / (STEPS - 1);
    const [lightness, warmth] = dark ? [0.44 + 0.48 * t, t] : [0.86 - 0.6 * t, 1 - t];
    const hue = ((290 - 185 * warmth) * Math.PI) / 180;
    const chroma = 0.12 + 0.04 * warmth;
    table.set([...fromOklab(lightness, chroma * Math.cos(hue), chroma * Math.sin(hue)), 255], 4 * step);
  }
  return table;
}

export function css(table, value) {
  const at = 4 * Math.round(Math.min(Math.max(value, 0), 1) * (STEPS - 1));
  return `rgb(${table[at]} ${table[at + 1]} ${table[at + 2]})`;
}

// Place of each hit on the palette, 0 to 1: by the logarithm of its charge, or by time.
export function places(event, by) {
  const values = by === "time" ? event.time_bucket : event.charge.map((q) => Math.log(Math.max(q, 1)));
  let [low, high] = range(event, by);
  if (by !== "time") [low, high] = [Math.log(low), Math.log(high)];
  return values.map((value) => (value - low) / (high - low));
}

export function range(event, by) {
  if (by === "time") {
    let [low, high] = [Infinity, -Infinity];
    for (const value of event.time_bucket) { low = Math.min(low, value); high = Math.max(high, value); }
    return low < high ? [low, high] : [0, 512];
  }
  return [40, 4095];
}
