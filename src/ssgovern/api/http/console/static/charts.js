// Lines over the last minutes, as SVG. Colours are the page's own, values are read by pointing or
// with the arrow keys.
(() => {
  "use strict";
  const NS = "http://www.w3.org/2000/svg", SPAN_MS = 300000;
  const W = 560, H = 124, LEFT = 46, RIGHT = 10, TOP = 10, BOTTOM = 20;
  const series = {};
  const el = (name, attributes, text) => {
    const made = document.createElementNS(NS, name);
    for (const [k, v] of Object.entries(attributes)) made.setAttribute(k, v);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  function nice(most) {
    if (!(most > 0)) return 1;
    const power = 10 ** Math.floor(Math.log10(most));
    for (const m of [1, 2, 5, 10]) if (m * power >= most) return m * power;
    return 10 * power;
  }
  const short = (v) => v >= 1000 ? (v / 1000).toFixed(v >= 10000 ? 0 : 1) + "k" : v >= 10 ? v.toFixed(0) : v >= 1 ? v.toFixed(1).replace(/\.0$/, "") : v === 0 ? "0" : v.toPrecision(2).replace(/\.?0+$/, "");
  function draw(box) {
    const names = box.dataset.chart.split(" ");
    const lines = names.map((n) => series[n] || []);
    const all = lines.flat();
    const known = all.filter((p) => p[1] !== null);
    const now = Math.max(Date.now(), ...all.map((p) => p[0]));
    const top = nice(Math.max(0, ...known.map((p) => p[1])) * 1.05);
    const x = (t) => LEFT + (W - LEFT - RIGHT) * (1 - (now - t) / SPAN_MS);
    const y = (v) => TOP + (H - TOP - BOTTOM) * (1 - v / top);
    const svg = el("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", tabindex: "0" });
    for (const part of [0, 0.5, 1]) {
      const v = top * part;
      svg.append(el("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: y(v), y2: y(v) }));
      svg.append(el("text", { x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, short(v)));
    }
    for (let m = 0; m <= 5; m++) {
      const label = m ? box.dataset.ago.replace("{n}", m) : box.dataset.now;
      if (m % 2 === 0) svg.append(el("text", { x: x(now - m * 60000), y: H - 5, "text-anchor": m ? "middle" : "end" }, label));
    }
    lines.forEach((points, i) => {
      const shown = points.filter((p) => now - p[0] <= SPAN_MS);
      let d = "", pen = false, first = null, last = null, area = "";
      for (const [t, v] of shown) {
        if (v === null) { pen = false; continue; }
        d += `${pen ? "L" : "M"}${x(t).toFixed(1)} ${y(v).toFixed(1)}`;
        if (!pen) { if (area) area += `L${x(last).toFixed(1)} ${y(0)}Z`; area += `M${x(t).toFixed(1)} ${y(0)}`; }
        area += `L${x(t).toFixed(1)} ${y(v).toFixed(1)}`;
        first ??= t; last = t; pen = true;
      }
      if (area && lines.length === 1) svg.append(el("path", { class: "area", d: area + `L${x(last).toFixed(1)} ${y(0)}Z` }));
      if (d) svg.append(el("path", { class: `line k${i + 1}`, d }));
      const end = shown.length && shown[shown.length - 1];
      if (end && end[1] !== null) svg.append(el("circle", { class: `dot k${i + 1}`, cx: x(end[0]), cy: y(end[1]), r: 2.5 }));
    });
    if (!known.length) svg.append(el("text", { class: "wait", x: (W + LEFT) / 2, y: H / 2, "text-anchor": "middle" }, box.dataset.empty));
    const latest = lines.map((p) => p.filter((q) => q[1] !== null).at(-1));
    svg.setAttribute("aria-label", names.map((n, i) => latest[i] ? `${n} ${short(latest[i][1])}${box.dataset.unit}` : "").join(" "));
    const guide = el("line", { class: "guide", y1: TOP, y2: H - BOTTOM, visibility: "hidden" });
    const label = el("text", { class: "value", y: TOP + 8, visibility: "hidden" });
    svg.append(guide, label);
    let chosen = -1;
    const show = (i) => {
      const main = lines[0];
      if (i < 0 || i >= main.length) return;
      chosen = i;
      const t = main[i][0], at = x(t), when = new Date(t).toLocaleTimeString();
      const text = names.map((n, k) => { const v = lines[k][i] && lines[k][i][1]; return v === null || v === undefined ? null : `${names.length > 1 ? n + " " : ""}${short(v)}${box.dataset.unit}`; }).filter(Boolean).join("  ");
      guide.setAttribute("x1", at); guide.setAttribute("x2", at); guide.setAttribute("visibility", "visible");
      label.textContent = `${when}  ${text}`;
      label.setAttribute("x", at > W / 2 ? at - 6 : at + 6);
      label.setAttribute("text-anchor", at > W / 2 ? "end" : "start");
      label.setAttribute("visibility", "visible");
    };
    svg.addEventListener("pointermove", (e) => {
      const r = svg.getBoundingClientRect(), at = (e.clientX - r.left) / r.width * W;
      let best = -1, far = Infinity;
      lines[0].forEach((p, i) => { const d = Math.abs(x(p[0]) - at); if (d < far) { far = d; best = i; } });
      box.dataset.pointed = "1"; show(best);
    });
    svg.addEventListener("pointerleave", () => { delete box.dataset.pointed; guide.setAttribute("visibility", "hidden"); label.setAttribute("visibility", "hidden"); });
    svg.addEventListener("keydown", (e) => {
      if (e.key === "ArrowLeft") { e.preventDefault(); show(chosen < 0 ? lines[0].length - 1 : chosen - 1); }
      if (e.key === "ArrowRight") { e.preventDefault(); show(chosen + 1); }
    });
    box.replaceChildren(svg);
  }
  function redraw() {
    for (const box of document.querySelectorAll("[data-chart]")) {
      // Who reads a value is not disturbed.
      if (!box.dataset.pointed && !box.contains(document.activeElement)) draw(box);
    }
  }
  function add(points) {
    for (const [name, fresh] of Object.entries(points)) {
      const old = series[name] ||= [];
      const after = old.length ? old[old.length - 1][0] : -Infinity;
      for (const p of fresh) if (p[0] > after) old.push(p);
      while (old.length > 600) old.shift();
    }
    redraw();
  }
  window.ssgovernCharts = { add };
  const first = document.querySelector("[data-chart]");
  if (first) add(JSON.parse(first.dataset.points));
})();
