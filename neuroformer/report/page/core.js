"use strict";
// Elements, numbers, axes and line charts; nothing here knows what a panel shows.
const COLORS = { true: "#1d2126", model: "#0072b2", other: "#d55e00", ceiling: "#007a5a", control: "#666c73",
  list: ["#0072b2", "#d55e00", "#007a5a", "#cc79a7", "#b07c00", "#56b4e9", "#666c73"] };
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "text") node.textContent = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const sv = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** A packed array {b: base64, t: type, s: shape, k: scale, o: offset} as a Float32Array; NaN is stored as 65535. */
function unpack(packed) {
  const raw = Uint8Array.from(atob(packed.b), (c) => c.charCodeAt(0)).buffer;
  if (packed.t === "f4") return new Float32Array(raw);
  if (packed.t === "u1") return new Uint8Array(raw);
  const whole = new Uint16Array(raw);
  if (packed.k === undefined) return whole;
  const out = new Float32Array(whole.length);
  for (let i = 0; i < out.length; i++) out[i] = whole[i] === 65535 ? NaN : packed.o + packed.k * whole[i];
  return out;
}

function show(x) {
  if (x === null || x === undefined || Number.isNaN(x)) return "–";
  if (typeof x !== "number") return String(x);
  const size = Math.abs(x);
  if (Number.isInteger(x)) return x.toLocaleString("en");
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return x.toExponential(2).replace("-", "−");
  return x.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3).replace("-", "−");
}

/** A score to three places, 1 included. */
const score = (x) => Number.isFinite(x) ? x.toFixed(3).replace("-", "−") : "–";
const tick = (t) => String(+t.toPrecision(6)).replace("-", "−");

function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough) || 10 * power;
  const out = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) out.push(+(k * step).toPrecision(12));
  return out;
}

function extent(arrays, pad = 0.05) {
  let low = Infinity, high = -Infinity;
  for (const a of arrays) for (const v of a) if (Number.isFinite(v)) { if (v < low) low = v; if (v > high) high = v; }
  if (low > high) return [0, 1];
  if (low === high) { low -= 0.5; high += 0.5; }
  const room = pad * (high - low);
  return [low - room, high + room];
}

/** Draw now, and again whenever the container's width changes. */
function responsive(node, draw) {
  let width = 0;
  const again = () => {
    const now = Math.floor(node.clientWidth);
    if (now > 0 && now !== width) { width = now; draw(width); }
  };
  new ResizeObserver(again).observe(node);
  return () => { width = Math.floor(node.clientWidth) || width; if (width) draw(width); };
}

/** An SVG with axes; draw(group, X, Y, width, height) adds the marks. */
function axes(width, { height = 220, x, y, xlabel = "", ylabel = "", label = "", draw, numY = 4, xtick = tick, left = 56 }) {
  const right = 12, top = 10, bottom = xlabel ? 40 : 24;
  const w = Math.max(60, width - left - right), h = height - top - bottom;
  const X = (v) => ((v - x[0]) / (x[1] - x[0])) * w, Y = (v) => h - ((v - y[0]) / (y[1] - y[0])) * h;
  const g = sv("g", { transform: `translate(${left},${top})` });
  for (const t of numY ? ticks(...y, numY) : []) g.append(
    sv("line", { class: "axis", x1: 0, x2: w, y1: Y(t), y2: Y(t) }),
    sv("text", { x: -8, y: Y(t) + 4, "text-anchor": "end", text: tick(t) }));
  for (const t of ticks(...x, Math.max(3, w / 110))) g.append(
    sv("line", { class: "axis", x1: X(t), x2: X(t), y1: h, y2: h + 4 }),
    sv("text", { x: X(t), y: h + 18, "text-anchor": "middle", text: xtick(t) }));
  if (xlabel) g.append(sv("text", { x: w / 2, y: h + 36, "text-anchor": "middle", text: xlabel }));
  if (ylabel) g.append(sv("text", { transform: `translate(-43,${h / 2}) rotate(-90)`, "text-anchor": "middle", text: ylabel }));
  draw(g, X, Y, w, h);
  return sv("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label || ylabel }, g);
}

/** A line of dots and strokes; none where a value is missing, or jumps by more than `turn` (half way around a circle). */
function path(xs, ys, X, Y, from = 0, to = xs.length, turn = Infinity) {
  let d = "", up = true;
  for (let i = from; i < to; i++) {
    if (!Number.isFinite(ys[i])) { up = true; continue; }
    if (!up && Math.abs(ys[i] - ys[i - 1]) > turn) up = true;
    d += (up ? "M" : "L") + X(xs[i]).toFixed(1) + " " + Y(ys[i]).toFixed(1) + (up ? "h0" : "");
    up = false;
  }
  return d;
}

/** Lines with a legend that switches them; series: {name, x, y, color, dots, width, turn}. */
function lineChart(node, options) {
  const off = new Set(), box = el("div"), legend = el("div", { class: "legend" });
  const draw = responsive(box, (width) => {
    const shown = options.series.filter((s) => !off.has(s.name));
    const x = options.x || extent(shown.map((s) => s.x), 0.01), y = options.y || extent(shown.flatMap((s) => s.low ? [s.y, s.low, s.high] : [s.y]));
    box.replaceChildren(axes(width, { ...options, x, y, draw: (g, X, Y, w) => {
      for (const v of options.rules || []) if (v >= y[0] && v <= y[1])
        g.append(sv("line", { x1: 0, x2: w, y1: Y(v), y2: Y(v), stroke: "#1d2126", "stroke-dasharray": "2 4" }));
      for (const s of shown) {
        if (s.low) { // an interval around the line
          const back = Array.from(s.x).map((_, i) => s.x.length - 1 - i);
          const d = path(s.x, s.high, X, Y) + back.map((i) => `L${X(s.x[i])} ${Y(s.low[i])}`).join("") + "Z";
          g.append(sv("path", { d, fill: s.color, opacity: 0.16 }));
        }
        g.append(sv("path", { d: path(s.x, s.y, X, Y, 0, s.x.length, s.turn), fill: "none", stroke: s.color, "stroke-width": s.width || 1.5,
          "stroke-linecap": s.turn ? "round" : "butt", "stroke-dasharray": s.dash }));
        if (s.low) for (let i = 0; i < s.x.length; i++) g.append(sv("line", { x1: X(s.x[i]), x2: X(s.x[i]), y1: Y(s.low[i]), y2: Y(s.high[i]), stroke: s.color, opacity: 0.5 }));
        if (s.dots) for (let i = 0; i < s.x.length; i++) if (Number.isFinite(s.y[i]))
          g.append(sv("circle", { cx: X(s.x[i]), cy: Y(s.y[i]), r: 3, fill: s.color },
            sv("title", { text: `${s.name}: ${show(s.y[i])} at ${show(s.x[i])}` })));
      }
    } }));
  });
  for (const s of options.series) legend.append(el("button", { type: "button", "aria-pressed": "true", onclick: (e) => {
    const hide = !off.has(s.name);
    if (hide && off.size === options.series.length - 1) return; // one line stays
    hide ? off.add(s.name) : off.delete(s.name);
    e.currentTarget.setAttribute("aria-pressed", String(!hide));
    draw();
  } }, el("span", { class: "swatch", style: `background:${s.color}` }), s.name));
  node.append(el("div", { class: "chart" }, box, options.series.length > 1 ? legend : null));
  return draw;
}

/** Draw values as square pixels, each by colour(value) = [r, g, b]. */
function pixels(c, values, rows, columns, w, h, colour) {
  const image = new ImageData(columns, rows), small = el("canvas", { width: columns, height: rows });
  for (let i = 0; i < rows * columns; i++) image.data.set([...colour(values[i]), 255], 4 * i);
  small.getContext("2d").putImageData(image, 0, 0);
  c.imageSmoothingEnabled = false;
  c.drawImage(small, 0, 0, w, h);
}

/** A canvas that is sharp on any screen; draw(context, width, height). */
function canvasOn(canvas, width, height, draw) {
  const ratio = Math.max(2, window.devicePixelRatio || 1);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = width + "px";
  canvas.style.height = height + "px";
  const c = canvas.getContext("2d");
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  c.font = "12px system-ui, sans-serif";
  draw(c, width, height);
}

function select(label, choices, onchange) {
  const s = el("select", { onchange: () => onchange(s.value) }, choices.map(([value, text]) => el("option", { value, text })));
  return [el("label", {}, label, s), s];
}
function checkbox(label, checked, onchange) {
  const c = el("input", { type: "checkbox", onchange: () => onchange(c.checked) });
  c.checked = checked;
  return [el("label", {}, c, label), c];
}
function slider(label, max, oninput) {
  const s = el("input", { type: "range", min: 0, max, step: 1, value: 0, oninput: () => oninput(+s.value) });
  return [el("label", {}, label, s), s];
}

// Colour maps: cividis-like for amounts (dark is much), blue-white-orange for signed values; both safe for colour-blind eyes.
const AMOUNT = [[255, 255, 255], [214, 228, 240], [140, 184, 217], [54, 126, 178], [8, 69, 121], [3, 30, 66]];
const SIGNED = [[0, 60, 110], [0, 114, 178], [150, 200, 226], [255, 255, 255], [247, 189, 138], [213, 94, 0], [125, 50, 0]];
const HEAT = [[255, 255, 255, 0], [255, 210, 90, 120], [240, 140, 20, 190], [213, 70, 0, 235]];
function shade(map, share) {
  const at = Math.min(Math.max(share, 0), 1) * (map.length - 1), i = Math.min(Math.floor(at), map.length - 2), f = at - i;
  return map[i].map((v, k) => v + f * (map[i + 1][k] - v));
}
const gradient = (map) => `linear-gradient(90deg, ${map.map((c) => `rgb(${c.slice(0, 3)})`).join(", ")})`;
