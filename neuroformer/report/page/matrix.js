"use strict";
// The connectivity matrix, maps over frames, and the start of the page.

PANELS.connectivity = (node, data) => {
  const maps = data.maps.map((m) => ({ ...m, pairs: unpack(m.pairs), z: m.z && unpack(m.z), passes: m.passes && unpack(m.passes), lags: m.lags && unpack(m.lags) }));
  const n = data.units.length, orders = Object.keys(data.orders);
  const view = { map: 0, order: orders[0], null: false, passing: false, cell: null };
  const canvas = el("canvas", { id: "matrix", tabindex: "0", role: "img" }), box = el("div", {}, canvas);
  const said = el("p", { class: "readout hint", id: "pair", role: "status", text: "Point at a cell, or focus the matrix and use the arrow keys." });
  const caption = el("p", { class: "readout", id: "matrix-shows" }), side = el("div"), scale = el("div", { class: "scale" }), lags = el("div");
  const value = (m, r, c) => (view.null && m.z ? m.z : m.pairs)[r * n + c];
  let size = 0;
  const draw = responsive(box, (width) => {
    const m = maps[view.map], order = data.orders[view.order], margin = 18;
    size = Math.max(1, (Math.min(width, 610) - margin) / n);
    const sizes = [];
    for (let r = 0; r < n; r++) for (let c = 0; c < n; c++) if (r !== c && Number.isFinite(value(m, r, c))) sizes.push(Math.abs(value(m, r, c)));
    sizes.sort((a, b) => a - b);
    const most = sizes[Math.floor(sizes.length * 0.998)] || sizes[sizes.length - 1] || 1, signed = m.signed || view.null;
    const paint = Array.from({ length: 256 }, (_, k) => `rgb(${shade(signed ? SIGNED : AMOUNT, k / 255).join()})`);
    canvasOn(canvas, margin + size * n, margin + size * n, (c) => {
      c.fillStyle = "#5b646e"; c.fillText("acts →", margin, 12);
      c.save(); c.translate(3, margin); c.rotate(Math.PI / 2); c.fillText("is acted on →", 0, 0); c.restore();
      for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) {
        const r = order[i], k = order[j], v = value(m, r, k);
        if (r === k || !Number.isFinite(v)) c.fillStyle = "#e6e8ea";
        else if (view.passing && m.passes && !m.passes[r * n + k]) c.fillStyle = "#fff";
        else c.fillStyle = paint[Math.round(255 * Math.min(1, Math.max(0, signed ? 0.5 + 0.5 * v / most : v / most)))];
        c.fillRect(margin + j * size, margin + i * size, size + 0.4, size + 0.4);
      }
      c.strokeStyle = "#b9bec3"; c.strokeRect(margin + 0.5, margin + 0.5, size * n - 1, size * n - 1);
      const groups = data.groups[view.order]; // lines where one area ends and the next begins
      if (groups) for (let i = 1; i < n; i++) if (groups[order[i]] !== groups[order[i - 1]]) {
        c.fillStyle = "#1d2126"; c.fillRect(margin, margin + i * size - 0.5, n * size, 1); c.fillRect(margin + i * size - 0.5, margin, 1, n * size);
      }
      if (view.cell) { c.strokeStyle = "#000"; c.lineWidth = 2; c.strokeRect(margin + view.cell[1] * size - 1, margin + view.cell[0] * size - 1, size + 2, size + 2); }
    });
    canvas.setAttribute("aria-label", `${m.name}: ${n} by ${n} units, columns act on rows`);
    scale.replaceChildren(show(signed ? -most : 0), el("i", { style: `background:${gradient(signed ? SIGNED : AMOUNT)}` }), show(most), ` ${view.null && m.z ? "z against the null" : m.unit}`);
  });
  const tell = () => {
    const m = maps[view.map], order = data.orders[view.order];
    const groups = data.groups[view.order], named = (u) => data.units[u] + (groups ? ` (${groups[u]})` : "");
    const runs = groups ? order.map((u) => groups[u]).filter((g, i, all) => !i || g !== all[i - 1]) : [];
    caption.textContent = `${m.name}, ${view.null && m.z ? "z scores against the null" : m.unit}; units by ${view.order}${runs.length ? `: ${runs.join(", ")}` : ""}.`;
    if (!view.cell) return;
    const r = order[view.cell[0]], c = order[view.cell[1]], i = r * n + c;
    let text = r === c ? `${named(r)} on itself` : `${named(c)} → ${named(r)}: ${show(m.pairs[i])} ${m.unit}`;
    if (r !== c && m.z) text += `, z ${show(m.z[i])}${m.passes[i] ? ", passes at 5 %" : ""}`;
    if (r !== c && data.truth) text += `; truth ${show(unpackTruth()[i])}`;
    said.textContent = text;
    said.classList.remove("hint");
    lags.replaceChildren();
    if (m.lags && r !== c) {
      const y = m.lags.subarray(i * m.lags_s.length, (i + 1) * m.lags_s.length);
      lags.append(el("h3", { text: "By lag" }));
      lineChart(lags, { height: 150, xlabel: "lag (s)", ylabel: "", label: "This pair by lag", series: [{ name: "pair", x: m.lags_s, y, color: COLORS.model, dots: true }] });
    }
  };
  let truth = null;
  const unpackTruth = () => (truth = truth || unpack(data.truth));
  const place = (e) => { const b = canvas.getBoundingClientRect(); return [e.clientY - b.top, e.clientX - b.left].map((v) => Math.floor((v - 18) / size)); };
  canvas.addEventListener("pointermove", (e) => { const p = place(e); if (p.every((v) => v >= 0 && v < n)) { view.cell = p; draw(); tell(); } });
  canvas.addEventListener("keydown", (e) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[e.key];
    if (!move) return;
    e.preventDefault();
    view.cell = (view.cell || [0, 0]).map((v, k) => Math.min(n - 1, Math.max(0, v + move[k])));
    draw(); tell();
  });
  const strongest = () => {
    const m = maps[view.map], found = [];
    for (let i = 0; i < n * n; i++) { const v = value(m, Math.floor(i / n), i % n); if (Math.floor(i / n) !== i % n && Number.isFinite(v)) found.push([v, i]); }
    found.sort((a, b) => b[0] - a[0]);
    const top = found.slice(0, 10).map(([v, i]) => el("tr", {}, el("td", { text: data.units[i % n] }), el("td", { text: data.units[Math.floor(i / n)] }), el("td", { class: "n", text: show(v) }),
      data.truth ? el("td", { class: "n", text: show(unpackTruth()[i]) }) : null));
    const head = el("tr", {}, ["acts", "on", view.null && m.z ? "z" : "value"].map((t) => el("th", { text: t })), data.truth ? el("th", { class: "n", text: "truth" }) : null);
    side.replaceChildren(el("h3", { text: "Strongest pairs" }), el("table", {}, el("thead", {}, head), el("tbody", {}, top)));
  };
  const [mapLabel, mapSelect] = select("Reading", maps.map((m, i) => [i, m.name]), (v) => { view.map = +v; update(); });
  const [orderLabel, orderSelect] = select("Sort by", orders.map((o) => [o, o]), (v) => { view.order = v; update(); });
  const [nullLabel, nullBox] = checkbox("Subtract the null", false, (on) => { view.null = on; update(); });
  const [passLabel, passBox] = checkbox("Only pairs that pass", false, (on) => { view.passing = on; update(); });
  mapSelect.id = "map"; orderSelect.id = "order"; nullBox.id = "null"; passBox.id = "passing";
  const note = el("p", { class: "note" });
  const update = () => {
    const m = maps[view.map];
    nullBox.disabled = passBox.disabled = !m.z;
    note.textContent = m.note || "";
    draw(); tell(); strongest();
  };
  node.append(el("div", { class: "controls" }, mapLabel, orderLabel, nullLabel, passLabel), note,
    el("div", { class: "matrix" }, el("div", {}, caption, box, scale, said), el("div", {}, side, lags)));
  if (data.left_out) node.append(el("p", { class: "note", text: `${data.left_out} more units are in maps.npz; those shown act or are acted on most.` }));
  if (data.scores) node.append(el("h3", { text: "Against the truth, over all ordered pairs" }), el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, ["reading", "AUROC", "squared Pearson r"].map((t, i) => el("th", { class: i ? "n" : "", text: t })))),
    el("tbody", {}, data.scores.map((s) => el("tr", {}, el("td", { text: s.name }), el("td", { class: "n", text: score(s.auroc) }), el("td", { class: "n", text: score(s.r2) })))))));
  update();
};

PANELS.frames = (node, data) => {
  const images = unpack(data.images), heat = data.attention && unpack(data.attention), maps = data.units && unpack(data.units.values);
  const [count, height, width] = data.images.s, [rows, columns] = data.grid, cells = rows * columns;
  const view = { frame: 0, overlay: true, what: "time", timer: 0 };
  const canvas = el("canvas", { id: "frames", role: "img" }), box = el("div", {}, canvas), said = el("p", { class: "readout", id: "frame-time", role: "status" });
  const draw = responsive(box, (room) => {
    const w = Math.min(room, 520), h = w * height / width;
    canvasOn(canvas, w, h, (c) => {
      pixels(c, images.subarray(view.frame * height * width), height, width, w, h, (v) => [v, v, v]);
      if (!view.overlay) return;
      const source = view.what === "time" ? heat.subarray(view.frame * cells, (view.frame + 1) * cells) : maps.subarray(+view.what * cells, (+view.what + 1) * cells);
      const low = Math.min(...source), high = Math.max(...source), over = new ImageData(columns, rows);
      for (let i = 0; i < cells; i++) { const [r, g, b, a] = shade(HEAT, (source[i] - low) / (high - low || 1)); over.data.set([r, g, b, a], 4 * i); }
      const patch = el("canvas", { width: columns, height: rows });
      patch.getContext("2d").putImageData(over, 0, 0);
      c.imageSmoothingEnabled = true;
      c.globalAlpha = 0.75;
      const [top, left, bottom, right] = data.extent.map((v, i) => v * (i % 2 ? w / width : h / height));
      c.drawImage(patch, left, top, right - left, bottom - top);
    });
    said.textContent = `Frame ${view.frame + 1} of ${count}, ${show(data.times[view.frame])} s in the recording`;
    canvas.setAttribute("aria-label", said.textContent + (view.overlay ? ", attention laid over it" : ""));
  });
  const [timeLabel, time] = slider("Time", count - 1, (v) => { view.frame = v; draw(); });
  time.id = "frame";
  const play = el("button", { type: "button", text: "Play", onclick: () => {
    if (view.timer) { clearInterval(view.timer); view.timer = 0; play.textContent = "Play"; return; }
    play.textContent = "Pause";
    view.timer = setInterval(() => { view.frame = (view.frame + 1) % count; time.value = view.frame; draw(); }, 120);
  } });
  const choices = [...(heat ? [["time", "attention to this frame, all units"]] : []), ...(data.units ? data.units.names.map((u, i) => [i, `unit ${u}, whole stretch`]) : [])];
  view.what = choices[0][0];
  const [overLabel, over] = checkbox("Overlay", true, (on) => { view.overlay = on; draw(); });
  over.id = "overlay";
  node.append(el("div", { class: "controls" }, timeLabel, play, select("Map", choices, (v) => { view.what = v; draw(); })[0], overLabel), box, said,
    el("div", { class: "scale" }, "little", el("i", { style: `background:${gradient(HEAT)}` }), "much attention"));
};

(function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const main = document.querySelector("main"), list = document.querySelector("nav ul"), todo = [];
  for (const panel of data.panels) {
    const section = el("section", { id: panel.id, "aria-labelledby": `${panel.id}-title` }, el("h2", { id: `${panel.id}-title`, text: panel.title }), el("p", { class: "note", text: panel.note }));
    main.append(section);
    list.append(el("li", {}, el("a", { href: `#${panel.id}`, text: panel.title })));
    todo.push(() => panel.missing ? section.append(missing(panel.missing)) : PANELS[panel.id](section, panel.data));
  }
  // what is seen first is there at once; thousands of units below it take no time from it
  const next = () => {
    if (todo.length) { todo.shift()(); setTimeout(next); }
    else document.documentElement.dataset.ready = "true";
  };
  next();
  const links = new Map([...list.querySelectorAll("a")].map((a) => [a.hash.slice(1), a]));
  const watch = new IntersectionObserver((entries) => {
    for (const e of entries) if (e.isIntersecting) for (const [id, a] of links) id === e.target.id ? a.setAttribute("aria-current", "true") : a.removeAttribute("aria-current");
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const s of main.children) watch.observe(s);
})();
