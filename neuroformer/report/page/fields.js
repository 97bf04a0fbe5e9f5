"use strict";
// Receptive fields and most exciting inputs: a tile a unit, and one unit large.

PANELS.fields = (node, data) => {
  const [n, rows, columns] = data.fields.s, size = rows * columns, fields = unpack(data.fields), lags = unpack(data.lags), clips = data.clips && unpack(data.clips);
  const frames = data.clips ? data.clips.s[1] : 0, steps = data.lags.s[1];
  const field = (u) => fields.subarray(u * size, (u + 1) * size);
  const clip = (u, f) => clips.subarray((u * frames + f) * size, (u * frames + f + 1) * size);
  const amount = (v) => shade(AMOUNT, v / 255), gray = (v) => [v, v, v];
  const view = { what: "fields", unit: 0 };
  const tiles = el("div", { class: "tiles" }), one = el("div"), title = el("h3"), said = el("p", { class: "readout", id: "field-said", role: "status" });
  const wide = 72, high = Math.round(wide * rows / columns);
  const small = data.units.map((name, u) => {
    const canvas = el("canvas", {}), button = el("button", { type: "button", class: "tile", onclick: () => { view.unit = u; update(); } }, canvas, name);
    tiles.append(button);
    return { button, paint: () => canvasOn(canvas, wide, high, (c) => view.what === "fields"
      ? pixels(c, field(u), rows, columns, wide, high, amount) : pixels(c, clip(u, data.best[u]), rows, columns, wide, high, gray)) };
  });
  const mark = (c, [x, y], w, draw) => { c.lineWidth = 2; c.beginPath(); draw((x + 0.5) * w / columns, (y + 0.5) * w / columns); c.stroke(); };
  const picture = (values, colour, w, text, more) => {
    const canvas = el("canvas", { role: "img", "aria-label": text }), h = w * rows / columns;
    canvasOn(canvas, w, h, (c) => { pixels(c, values, rows, columns, w, h, colour); if (more) more(c, w); });
    return el("figure", {}, canvas, el("figcaption", { text }));
  };
  const centers = (u) => (c, w) => {
    c.strokeStyle = "#d55e00";
    mark(c, data.centers[u], w, (x, y) => { c.moveTo(x - 6, y); c.lineTo(x + 6, y); c.moveTo(x, y - 6); c.lineTo(x, y + 6); });
    if (data.truth && data.truth[u]) { c.strokeStyle = "#1d2126"; mark(c, data.truth[u], w, (x, y) => c.arc(x, y, 8, 0, 7)); }
  };
  const update = () => {
    const u = view.unit;
    small.forEach((s, i) => i === u ? s.button.setAttribute("aria-current", "true") : s.button.removeAttribute("aria-current"));
    const [x, y] = data.centers[u];
    said.textContent = `Field centred at column ${x.toFixed(1)}, row ${y.toFixed(1)}` +
      (data.truth && data.truth[u] ? `; true centre ${Math.hypot(x - data.truth[u][0], y - data.truth[u][1]).toFixed(2)} pixels away` : "") +
      (clips ? `. The most exciting input raises its predicted rate ${show(data.gain[u])} times above a gray screen.` : ".") +
      (data.halves ? ` Between models of two halves of the data the field correlates at ${show(data.halves[u][0])}, the input at ${show(data.halves[u][1])}.` : "");
    title.textContent = `Unit ${data.units[u]}`;
    one.replaceChildren(picture(field(u), amount, 220, "receptive field, summed over lags; + its centre" + (data.truth ? ", o the true one" : ""), centers(u)));
    if (steps > 1) lineChart(one, { height: 130, xlabel: "s before the last frame", ylabel: "share", label: "Receptive field by lag",
      series: [{ name: "share of the field", x: data.lags_s, y: lags.subarray(u * steps, (u + 1) * steps), color: COLORS.model, dots: true }] });
    if (clips) one.append(el("h3", { text: "Most exciting input" }), el("div", { class: "clip" }, Array.from({ length: frames }, (_, f) => picture(clip(u, f), gray, 84, `frame ${f + 1} of ${frames}`))));
  };
  const choices = [["fields", "receptive fields"], ...(clips ? [["clips", "most exciting inputs"]] : [])];
  const [whatLabel, what] = select("Show", choices, (v) => { view.what = v; small.forEach((s) => s.paint()); });
  what.id = "tiles-show";
  node.append(el("div", { class: "controls" }, whatLabel), el("div", { class: "matrix" }, tiles, el("div", {}, title, said, one)));
  if (data.left_out) node.append(el("p", { class: "note", text: `${data.left_out} more units are in fields.npz; those shown respond most.` }));
  small.forEach((s) => s.paint());
  update();
};
