"use strict";
// One function a panel: (node, data) fills a section with what collect.py gathered.
const PANELS = {};
const MARKS = { model: "●", other: "◆", control: "■", ceiling: "▎" };

PANELS.summary = (node, data) => {
  node.append(el("div", { class: "cards" }, data.cards.map((c) =>
    el("div", { class: "card" }, el("span", { text: c.name }), el("b", { text: show(c.value) }), el("span", { text: c.note })))));
  const kinds = [["model", "model"], ["other", "baseline"], ["control", "sees no spikes"], ["ceiling", "ceiling"]];
  node.append(el("div", { class: "legend" }, kinds.map(([k, name]) =>
    el("span", {}, el("span", { style: `color:${COLORS[k]};margin-right:.35rem`, text: MARKS[k], "aria-hidden": "true" }), name))));
  for (const row of data.rows) node.append(strip(row));
  const cells = Object.entries(data.all).map(([k, v]) => el("tr", {}, el("td", {}, el("code", { text: k })), el("td", { class: "n", text: show(v) })));
  node.append(el("details", {}, el("summary", { text: `All ${cells.length} values of summary.json` }),
    el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, cells)))));
};

/** A measure on one line: model with its interval, baselines, controls and ceiling, each with its value in words. */
function strip(row) {
  const box = el("div");
  const known = row.points.filter((p) => Number.isFinite(p.value));
  const x = extent([known.flatMap((p) => [p.value, p.low ?? p.value, p.high ?? p.value]), [0]], 0.04);
  responsive(box, (width) => {
    const svg = axes(width, { height: 66, left: 12, x, y: [0, 1], numY: 0, label: row.name, draw: (g, X, Y, w, h) => {
      g.append(sv("line", { class: "axis", x1: 0, x2: w, y1: Y(0.5), y2: Y(0.5) }));
      for (const p of known) {
        const title = `${p.name} ${show(p.value)}` + (Number.isFinite(p.low) ? ` (${show(p.low)} to ${show(p.high)})` : "");
        const color = COLORS[p.kind], at = X(p.value), y = Y(0.5);
        const mark = { model: () => sv("circle", { cx: at, cy: y, r: 6.5, fill: color }),
          other: () => sv("path", { d: `M${at} ${y - 7}l6 7l-6 7l-6-7Z`, fill: color }),
          control: () => sv("rect", { x: at - 4.5, y: y - 4.5, width: 9, height: 9, fill: color }),
          ceiling: () => sv("rect", { x: at - 2, y: y - 12, width: 4, height: 24, fill: color }) }[p.kind]();
        mark.append(sv("title", { text: title }));
        if (Number.isFinite(p.low)) g.append(sv("line", { x1: X(p.low), x2: X(p.high), y1: y, y2: y, stroke: color, "stroke-width": 3, opacity: 0.45 }));
        g.append(mark);
      }
    } });
    box.replaceChildren(svg);
  });
  const words = row.points.map((p) => el("span", { class: "point" }, el("span", { style: `color:${COLORS[p.kind]}`, text: MARKS[p.kind], "aria-hidden": "true" }),
    ` ${p.name} ${show(p.value)}` + (Number.isFinite(p.low) ? ` (${show(p.low)} to ${show(p.high)})` : "")));
  return el("div", { class: "strip" }, el("h3", { text: row.name }), el("div", { class: "readout" }, words), box);
}

PANELS.audit = (node, data) => {
  const names = { leak: "Leak", warning: "Warning", note: "Note", ok: "Clean" };
  node.append(timeline(data));
  if (data.missing) node.append(missing(data.missing));
  else if (!data.findings.length) node.append(el("p", { class: "tag ok", text: "Clean: the audit found nothing to say" }));
  for (const f of data.findings || []) node.append(el("div", { class: "finding" },
    el("p", { class: `tag ${f.severity}`, text: names[f.severity] || f.severity }),
    el("div", {}, el("p", {}, el("b", { text: f.name.replaceAll("_", " ") }), " ", f.measured),
      f.advice ? el("p", { class: "advice", text: f.advice }) : null)));
};

function timeline(data) {
  const parts = [["train", COLORS.model], ["valid", "#56b4e9"], ["test", COLORS.other]], box = el("div");
  const all = parts.flatMap(([p]) => data.split[p] || []);
  const low = Math.min(...all.map((i) => i[0])), high = Math.max(...all.map((i) => i[1]));
  responsive(box, (width) => box.replaceChildren(sv("svg", { width, height: 46, role: "img", "aria-label": "Which stretches train, validate and test" },
    parts.flatMap(([p, color]) => (data.split[p] || []).map(([a, b]) => sv("rect", { x: (a - low) / (high - low) * width, y: 2,
      width: Math.max(0.5, (b - a) / (high - low) * width), height: 22, fill: color }, sv("title", { text: `${p}: ${show(a)} to ${show(b)} s` })))),
    sv("text", { x: 0, y: 42, text: show(low) + " s" }), sv("text", { x: width, y: 42, "text-anchor": "end", text: show(high) + " s" }))));
  const legend = el("div", { class: "legend" }, parts.map(([p, color]) => el("span", {},
    el("span", { class: "swatch", style: `background:${color};height:.7rem` }), `${p} ${show(data.seconds[p])} s`)));
  return el("div", {}, box, legend, el("p", { class: "note", text: `The score claims to generalise over ${data.claim}.` }));
}

PANELS.learning = (node, data) => {
  const grid = el("div", { class: "grid" });
  node.append(grid);
  for (const chart of data.charts) {
    const part = el("div", {}, el("h3", { text: chart.name }));
    grid.append(part);
    lineChart(part, { xlabel: "step", label: chart.name, series: chart.series.map((s, i) => ({ ...s, color: COLORS.list[i % 7], dots: s.x.length < 40 })) });
  }
};

PANELS.rasters = (node, data) => {
  const trials = data.trials.map((t) => ({ ...t, recorded: spikes(t.recorded), samples: t.samples.map(spikes) }));
  const orders = Object.keys(data.orders), places = {};
  for (const key of orders) { places[key] = new Uint16Array(data.num_units); data.orders[key].forEach((u, i) => { places[key][u] = i; }); }
  const view = { trial: 0, sample: 0, order: orders[0], from: 0, seconds: 10 };
  const canvas = el("canvas", { id: "raster", role: "img", "aria-label": "Spikes of one trial: recorded above, simulated below" });
  const box = el("div", {}, canvas), said = el("p", { class: "readout", role: "status" });
  const draw = responsive(box, (width) => {
    const t = trials[view.trial], seconds = Math.min(view.seconds, t.length), half = Math.max(110, Math.min(230, data.num_units * 3));
    const from = Math.min(view.from, Math.max(0, t.length - seconds));
    canvasOn(canvas, width, 2 * half + 58, (c) => {
      const left = 8, w = width - left - 8, place = places[view.order];
      for (const [row, [name, s, color]] of [["recorded", t.recorded, COLORS.true], [`simulated, sample ${view.sample + 1}`, t.samples[view.sample], COLORS.model]].entries()) {
        const top = 18 + row * (half + 22), size = Math.max(1, half / data.num_units);
        c.fillStyle = color; c.fillText(`${name}`, left, top - 5);
        c.fillStyle = "#f2f3f0"; c.fillRect(left, top, w, half); c.fillStyle = color;
        for (let i = 0; i < s.unit.length; i++) {
          const at = s.time[i] / 65535 * t.length - from;
          if (at >= 0 && at < seconds) c.fillRect(left + at / seconds * w, top + place[s.unit[i]] * half / data.num_units, 1.2, Math.max(1, size * 0.85));
        }
      }
      c.fillStyle = "#5b646e"; c.textAlign = "center";
      for (const v of ticks(from, from + seconds, Math.max(3, w / 120))) c.fillText(`${tick(v)} s`, Math.min(w - 4, Math.max(14, left + (v - from) / seconds * w)), 2 * half + 56);
      c.textAlign = "left";
    });
    const rate = (s) => { let n = 0; for (const v of s.time) { const at = v / 65535 * t.length - from; n += at >= 0 && at < seconds; } return n / seconds; };
    said.textContent = `${t.name}: recorded ${show(rate(t.recorded))} spikes/s, simulated ${show(rate(t.samples[view.sample]))} spikes/s over the ${show(seconds)} s shown`;
  });
  const [trialLabel, trialSelect] = select("Trial", trials.map((t, i) => [i, t.name]), (v) => { view.trial = +v; view.sample = Math.min(view.sample, trials[view.trial].samples.length - 1); draw(); });
  trialSelect.id = "trial";
  const step = (d) => { view.trial = (view.trial + d + trials.length) % trials.length; trialSelect.value = view.trial; draw(); };
  const longest = Math.max(...trials.map((t) => t.length));
  const [fromLabel] = slider("From", Math.ceil(longest), (v) => { view.from = v; draw(); });
  node.append(el("div", { class: "controls" }, trialLabel,
    el("button", { type: "button", text: "Previous", onclick: () => step(-1) }), el("button", { type: "button", text: "Next", onclick: () => step(1) }),
    select("Sample", trials[0].samples.map((_, i) => [i, i + 1]), (v) => { view.sample = Math.min(+v, trials[view.trial].samples.length - 1); draw(); })[0],
    select("Units by", orders.map((o) => [o, o]), (v) => { view.order = v; draw(); })[0],
    select("Show", [[10, "10 s"], [3, "3 s"], [1e9, "whole trial"]], (v) => { view.seconds = +v; draw(); })[0], fromLabel), box, said);
  if (data.left_out) node.append(el("p", { class: "note", text: `${data.left_out} more trials are in simulated.npz; they are left out to keep this file small.` }));
};
const spikes = (s) => ({ time: unpack(s.time), unit: unpack(s.unit) });

PANELS.psth = (node, data) => {
  const held = unpack(data.held_out), made = unpack(data.simulated), n = data.units.length, bins = held.length / n;
  const time = Float32Array.from({ length: bins }, (_, i) => i * data.width_s);
  const column = (a, u) => Float32Array.from({ length: bins }, (_, b) => a[b * n + u]);
  // the unit that opens is the median one, not the best
  const ranked = data.r.map((r, i) => [r, i]).filter(([r]) => r !== null).sort((a, b) => a[0] - b[0]);
  const view = { unit: ranked.length ? ranked[Math.floor(ranked.length / 2)][1] : 0, from: 0 }, box = el("div"), said = el("p", { class: "readout", id: "psth-said", role: "status" });
  const draw = responsive(box, (width) => {
    said.textContent = `Unit ${data.units[view.unit]}: r ${score(data.r[view.unit])}. Median over all units ${score(data.median)}, ceiling (training repeats against held-out ones) ${score(data.ceiling)}.`;
    const from = Math.min(view.from, Math.max(0, time[bins - 1] - 20)), x = [from, Math.min(from + 20, time[bins - 1] || 1)];
    const a = column(held, view.unit), b = column(made, view.unit), lo = Math.floor(x[0] / data.width_s), hi = Math.ceil(x[1] / data.width_s) + 1;
    box.replaceChildren(axes(width, { height: 240, x, y: extent([a, b, [0]]), xlabel: "time in the stimuli, one after another (s)", ylabel: "spikes/s",
      label: `PSTH of unit ${data.units[view.unit]}`, draw: (g, X, Y) => g.append(
        sv("path", { d: path(time, a, X, Y, lo, Math.min(hi, bins)), fill: "none", stroke: COLORS.true, "stroke-width": 1.3 }),
        sv("path", { d: path(time, b, X, Y, lo, Math.min(hi, bins)), fill: "none", stroke: COLORS.model, "stroke-width": 1.3 })) }));
  });
  const [unitLabel, unitSelect] = select("Unit", data.units.map((u, i) => [i, `${u} (r ${show(data.r[i])})`]), (v) => { view.unit = +v; draw(); });
  const step = (d) => { view.unit = (view.unit + d + n) % n; unitSelect.value = view.unit; draw(); };
  unitSelect.id = "psth-unit";
  unitSelect.value = view.unit;
  node.append(el("div", { class: "controls" }, unitLabel,
    el("button", { type: "button", text: "Previous", onclick: () => step(-1) }), el("button", { type: "button", text: "Next", onclick: () => step(1) }),
    slider("From", Math.max(0, Math.floor(time[bins - 1] - 20)), (v) => { view.from = v; draw(); })[0]), said, box,
    el("div", { class: "legend" }, el("span", {}, el("span", { class: "swatch", style: `background:${COLORS.true}` }), `held out, ${data.num_held_out} repeats`),
      el("span", {}, el("span", { class: "swatch", style: `background:${COLORS.model}` }), `simulated, ${data.num_simulated} repeats`)));
};

PANELS.statistics = (node, data) => {
  const colors = { model: COLORS.model, true_past: "#56b4e9", ceiling: COLORS.ceiling, psth_poisson: COLORS.other, homogeneous: COLORS.control, readout: "#cc79a7" };
  const said = { model: "closed loop", true_past: "after the recorded past", ceiling: "data against data", psth_poisson: "PSTH Poisson", homogeneous: "homogeneous Poisson", readout: "rates the model states" };
  const names = Object.keys(data.candidates), scores = [...new Set(names.flatMap((n) => Object.keys(data.candidates[n])))];
  const cell = (s, v) => [show(v[0]), Number.isFinite(v[1]) && s !== "feve_units" ? el("small", { text: `${show(v[1])} to ${show(v[2])}` }) : null];
  node.append(el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, el("th", { text: "score" }), names.map((n) => el("th", {}, el("span", { class: "swatch", style: `background:${colors[n]}` }), said[n] || n)))),
    el("tbody", {}, scores.map((s) => el("tr", {}, el("td", {}, s.replaceAll("_", " "), el("small", { text: data.meanings[s] || "" })), names.map((n) => el("td", {}, data.candidates[n][s] ? cell(s, data.candidates[n][s]) : "–"))))))));
  const drift = data.since_closed || {}, grid = el("div", { class: "grid" });
  node.append(grid);
  for (const key of Object.keys(drift).filter((k) => k !== "start_s" && !/^(true_past|ceiling)_/.test(k))) {
    const part = el("div", {}, el("h3", { text: `${key.replaceAll("_", " ")} since the loop closed` })), series = [];
    for (const [side, start] of [["model", ""], ["true_past", "true_past_"], ["ceiling", "ceiling_"]])
      if (drift[start + key]) series.push({ name: said[side], x: drift.start_s, y: drift[start + key], color: colors[side], dots: true });
    grid.append(part);
    lineChart(part, { height: 190, xlabel: "seconds of closed loop", rules: key === "rate_ratio" ? [1] : [], series });
  }
};

PANELS.decoding = (node, data) => {
  const all = data.targets.map((t) => ({ ...t, times: unpack(t.times), lines: t.lines.map((l) => ({ ...l, y: unpack(l.y) })) }));
  const view = { target: 0, from: 0, span: 60 }, charts = el("div");
  let draws = [];
  const build = () => {
    const t = all[view.target], n = t.times.length, stop = (start) => { let i = start; while (i < n && t.times[i] < t.times[start] + view.span) i++; return i; };
    const start = Math.min(Math.floor(view.from / 1000 * n), n - 2), end = Math.max(stop(start), start + 2), gap = 2 * (t.times[1] - t.times[0]) + 1e-6;
    charts.replaceChildren();
    draws = t.columns.map((name, c) => {
      const part = el("div");
      charts.append(part);
      const x = t.times.subarray(start, end);
      const cut = (l) => Float32Array.from(x, (v, i) => i && x[i] - x[i - 1] > gap ? NaN : l.y[(start + i) * t.columns.length + c]);
      return lineChart(part, { height: 190, xlabel: c === t.columns.length - 1 ? "time in the recording (s)" : "", ylabel: name,
        series: t.lines.map((l) => ({ name: l.name, x, y: cut(l), turn: t.period ? t.period / 2 : undefined, color: COLORS[l.kind], width: l.kind === "true" ? 1.8 : 1.3 })) });
    });
  };
  const [targetLabel, targetSelect] = select("Variable", all.map((t, i) => [i, t.name]), (v) => { view.target = +v; build(); });
  targetSelect.id = "decode-target";
  node.append(el("div", { class: "controls" }, targetLabel, slider("From", 990, (v) => { view.from = v; build(); })[0],
    select("Show", [[60, "1 min"], [20, "20 s"], [300, "5 min"]], (v) => { view.span = +v; build(); })[0]), charts);
  build();
  curves(node, data.charts);
};

const curves = (node, charts) => {
  const grid = el("div", { class: "grid" });
  node.append(grid);
  for (const chart of charts) {
    const part = el("div", {}, el("h3", { text: chart.name }));
    grid.append(part);
    const kind = (name, i) => /pretrain|^model$/.test(name) ? COLORS.model : COLORS.list[(i + 1) % 7];
    lineChart(part, { xtick: chart.log ? (t) => tick(+(10 ** t).toPrecision(2)) : tick, xlabel: chart.xlabel, ylabel: chart.ylabel, label: chart.name, series: chart.series.map((s, i) => ({ ...s, color: kind(s.name, i), dots: true })) });
  }
};

PANELS.fewshot = (node, data) => curves(node, data.charts);

// what does not answer to a pointer was drawn by matplotlib
PANELS.identity = (node, data) => {
  for (const f of data.figures) node.append(el("img", { class: "drawn", src: f.src, alt: f.alt }));
};

PANELS.comparison = (node, data) => {
  const between = (low, high) => Number.isFinite(low) ? el("small", { text: ` ${show(low)} to ${show(high)}` }) : null;
  PANELS.identity(node, data);
  for (const table of data.tables) {
    const head = ["", "features", "made of", "score", "ceiling", "of ceiling", "null, 95 %"].map((text) => el("th", { scope: "col", text }));
    const body = table.rows.map((r) => el("tr", {}, el("td", { text: `${r.source}: ${r.layer}` }), el("td", { class: "n", text: show(r.features) }),
      el("td", { text: r.sees }), el("td", { class: "n" }, show(r.score), between(r.low, r.high)), el("td", { class: "n", text: show(r.ceiling) }),
      el("td", { class: "n" }, show(r.normalized), between(r.normalized_low, r.normalized_high)), el("td", { class: "n", text: show(r.null) })));
    node.append(el("h3", { text: table.name }), el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body))));
  }
};

PANELS.forecast = (node, data) => {
  curves(node, data.charts);
  if (!data.groups) return;
  const head = data.groups.head.map((text) => el("th", { scope: "col", text }));
  const body = data.groups.rows.map(([name, ...values]) => el("tr", {}, el("th", { scope: "row", text: name }), values.map((v) => el("td", { class: "n", text: show(v) }))));
  node.append(el("h3", { text: "Predictability by group of units" }), el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body))));
};

PANELS.setup = (node, data) => {
  node.append(el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, Object.entries(data.facts).map(([k, v]) =>
    el("tr", {}, el("th", { scope: "row", text: k }), el("td", { text: v })))))),
    el("details", { open: true }, el("summary", { text: "Configuration" }), el("pre", { tabindex: "0", text: data.config })));
};

const missing = (m) => el("p", { class: "missing" }, m.why + " ", m.command ? el("code", { text: m.command }) : null);
