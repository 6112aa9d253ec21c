// Keeps a page live. The node sends what changed: pieces of HTML by their ids, tables as lists of
// ids, points of charts. What is shown while the node is not heard is marked as old.
(() => {
  "use strict";
  const SILENT_MS = 5000, FIRST_MS = 500, MOST_MS = 10000;
  const held = new Map();
  let source = null, retry = 0, pause = FIRST_MS, heard = 0, lostAt = 0, address = "", token = null;

  const byId = (id) => document.getElementById(id);
  const words = () => { const el = byId("live"); return el ? JSON.parse(el.dataset.words) : {}; };
  const wanted = () => {
    const all = document.querySelectorAll("[data-live]");
    return all.length ? all[all.length - 1].dataset.live : "";
  };

  // --- times in the reader's own zone
  const two = (n) => String(n).padStart(2, "0");
  const hms = (d) => `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  function times(root) {
    for (const el of root.querySelectorAll("time[data-ms]")) {
      const d = new Date(Number(el.dataset.ms));
      const day = `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
      const today = new Date().toDateString() === d.toDateString();
      el.textContent = today ? hms(d) : `${day} ${hms(d)}`;
      el.title = `${day} ${hms(d)}`;
    }
  }

  // --- putting pieces in their places
  function made(html) {
    const t = document.createElement("template");
    t.innerHTML = html;
    times(t.content);
    return t.content.firstElementChild;
  }
  function isBusy(el) {
    const f = document.activeElement;
    return el.querySelector("[data-busy]") !== null
      || (f !== null && el.contains(f) && f.matches("input, select, textarea"));
  }
  function put(id, html, isNews) {
    const old = byId(id);
    if (!old) return;
    if (isBusy(old)) { held.set(id, html); return; }
    held.delete(id);
    const fresh = made(html);
    if (!fresh) return;
    for (const d of old.querySelectorAll("details[open]")) {
      const same = d.id && fresh.querySelector("#" + CSS.escape(d.id));
      if (same) same.open = true;
    }
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    const scrolled = old.querySelector(".scroll")?.scrollLeft ?? 0;
    old.replaceWith(fresh);
    if (isNews && fresh.dataset.flash !== undefined) fresh.classList.add("changed");
    if (scrolled) fresh.querySelector(".scroll").scrollLeft = scrolled;
    if (focused) byId(focused)?.focus({ preventScroll: true });
    if (window.htmx) htmx.process(fresh);
  }
  function arrange(listId, ids, pieces, isNews) {
    const list = byId(listId);
    if (!list) return;
    const keep = new Set(ids);
    for (const el of [...list.children]) if (!keep.has(el.id)) el.remove();
    let at = list.firstElementChild;
    for (const id of ids) {
      let el = byId(id);
      if (!el && pieces[id]) {
        el = made(pieces[id]);
        if (isNews) el.classList.add("arrived");
        list.insertBefore(el, at);
        if (window.htmx) htmx.process(el);
        delete pieces[id];
      } else if (el && el !== at) {
        list.insertBefore(el, at);
      } else if (el) {
        at = at.nextElementSibling;
      }
    }
  }
  function apply(message) {
    const pieces = message.pieces || {};
    for (const [id, ids] of Object.entries(message.lists || {})) arrange(id, ids, pieces, !message.all);
    for (const [id, html] of Object.entries(pieces)) put(id, html, !message.all);
    if (message.points && window.ssgovernCharts) ssgovernCharts.add(message.points);
  }
  addEventListener("focusout", () => setTimeout(() => {
    for (const [id, html] of [...held]) put(id, html, false);
  }, 50));

  // --- the stream
  function say(state) {
    const el = byId("live");
    if (!el) return;
    el.className = "live " + state;
    el.querySelector("span").textContent = words()[state] || state;
  }
  function good() {
    heard = Date.now();
    pause = FIRST_MS;
    if (lostAt || !document.documentElement.classList.contains("is-live")) {
      lostAt = 0;
      document.documentElement.classList.remove("is-old");
      document.documentElement.classList.add("is-live");
      byId("banner").hidden = true;
      say("live");
    }
  }
  function bad() {
    document.documentElement.classList.remove("is-live");
    if (!lostAt) {
      lostAt = heard || Date.now();
      const banner = byId("banner");
      banner.querySelector("span").textContent =
        banner.dataset.text.replace("{time}", hms(new Date(lostAt)));
      banner.hidden = false;
      document.documentElement.classList.add("is-old");
      say("lost");
    }
  }
  function close() {
    clearTimeout(retry);
    if (source) { source.close(); source = null; }
  }
  function fail() {
    close();
    bad();
    retry = setTimeout(open, pause);
    pause = Math.min(pause * 1.7, MOST_MS);
  }
  function open() {
    close();
    if (wanted() !== address) { address = wanted(); token = null; }
    if (!address || document.hidden) return;
    const opened = Date.now();
    const next = new URL(address, location.href);
    // What the page has is named once; after that, and after a failure, everything is told.
    if (token !== null) next.searchParams.set("token", token);
    token = "";
    const mine = source = new EventSource(next);
    mine.addEventListener("set", (e) => { if (mine === source) { good(); apply(JSON.parse(e.data)); } });
    mine.addEventListener("tick", () => { if (mine === source) good(); });
    // The node ends each stream after a while: the next follows without a pause.
    mine.addEventListener("again", (e) => { if (mine === source) { token = JSON.parse(e.data).token; open(); } });
    mine.addEventListener("gone", () => { if (mine === source) location.reload(); });
    mine.onerror = () => { if (mine === source) fail(); };
    heard = Math.max(heard, lostAt ? heard : opened);
  }
  setInterval(() => {
    if (source && !lostAt && Date.now() - heard > SILENT_MS) fail();
    else if (source && lostAt && Date.now() - Math.max(heard, watched) > SILENT_MS) { watched = Date.now(); fail(); }
  }, 1000);
  let watched = Date.now();

  document.addEventListener("visibilitychange", () => {
    // A hidden page costs its node nothing.
    if (document.hidden) { close(); } else { heard = Date.now(); open(); }
  });
  addEventListener("online", open);
  addEventListener("pagehide", close);
  addEventListener("pageshow", (e) => { if (e.persisted) location.reload(); });
  document.addEventListener("htmx:afterSettle", () => { times(document); if (wanted() !== address) open(); });

  // --- actions: asked before, told after
  function toast(text, kind) {
    const el = document.createElement("div");
    el.className = "toast " + kind;
    el.textContent = text;
    byId("toasts").append(el);
    setTimeout(() => el.remove(), kind === "bad" ? 12000 : 5000);
  }
  document.addEventListener("htmx:confirm", (e) => {
    const asking = e.target.closest("[data-ask]");
    if (!asking || e.detail.elt !== asking) return;
    e.preventDefault();
    const dialog = byId("ask");
    byId("ask-text").textContent = asking.dataset.ask;
    dialog.querySelector("[value=yes]").textContent = asking.textContent.trim();
    dialog.querySelector("[value=yes]").className = "primary" + (asking.classList.contains("danger") ? " danger" : "");
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      if (dialog.returnValue === "yes") e.detail.issueRequest(true);
      else asking.focus();
    }, { once: true });
    dialog.showModal();
  });
  document.addEventListener("htmx:beforeSend", (e) => {
    const { xhr, elt, requestConfig } = e.detail;
    if (requestConfig.verb === "get") return;
    // Listened to here and not through the page: what was acted on may be gone by then.
    xhr.addEventListener("loadend", () => {
      let said = {};
      try { said = JSON.parse(xhr.responseText); } catch { /* nothing is told */ }
      if (xhr.status >= 200 && xhr.status < 300) {
        if (elt.dataset.then) location.href = elt.dataset.then;
        if (said.told) toast(said.told, "good");
        return;
      }
      toast(said.detail || (xhr.status ? `HTTP ${xhr.status}` : words().lost || ""), "bad");
      if (elt.matches("input[type=range]")) {
        elt.value = elt.defaultValue;
        elt.dispatchEvent(new Event("input", { bubbles: true }));
      }
    });
  });
  document.addEventListener("htmx:beforeSwap", (e) => {
    // A page that says why it failed is shown as what it is, not in the place of a table.
    if (e.detail.xhr.status === 401) { location.href = "/login"; }
  });

  // --- the weight slider shows its value while it moves
  document.addEventListener("input", (e) => {
    if (e.target.matches("input[data-shows]")) {
      const out = byId(e.target.dataset.shows);
      if (out) out.value = e.target.value;
    }
  });

  // --- keys, squares
  document.addEventListener("keydown", (e) => {
    if (e.key === "/" && !e.ctrlKey && !e.metaKey && !e.target.matches("input, textarea, select")) {
      const search = document.querySelector("[data-slash]");
      if (search) { e.preventDefault(); search.focus(); search.select(); }
    }
  });
  function showShard(number) {
    const lanes = byId("lanes");
    if (!lanes || number < 0 || number > 255) return;
    lanes.dataset.chosen = number;
    mark();
    htmx.ajax("GET", `/cluster/shard/${number}`, { target: "#shard", swap: "innerHTML" });
  }
  function mark() {
    const lanes = byId("lanes");
    if (!lanes || lanes.dataset.chosen === undefined) return;
    const n = Number(lanes.dataset.chosen);
    for (const m of lanes.querySelectorAll(".mark")) {
      m.setAttribute("x", (n % 64) * 10 + 0.5);
      m.setAttribute("y", Math.floor(n / 64) * 10 + 0.5);
      m.removeAttribute("visibility");
    }
  }
  const squareAt = (svg, e) => {
    const box = svg.getBoundingClientRect();
    const x = Math.floor((e.clientX - box.left) / box.width * 64);
    const y = Math.floor((e.clientY - box.top) / box.height * 4);
    return Math.min(3, Math.max(0, y)) * 64 + Math.min(63, Math.max(0, x));
  };
  document.addEventListener("click", (e) => {
    const svg = e.target.closest("svg.lane");
    if (svg) showShard(squareAt(svg, e));
  });
  document.addEventListener("keydown", (e) => {
    const svg = e.target.closest?.("svg.lane");
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 64, ArrowUp: -64, Enter: 0, " ": 0 }[e.key];
    if (!svg || step === undefined) return;
    e.preventDefault();
    showShard(Math.min(255, Math.max(0, Number(byId("lanes").dataset.chosen ?? 0) + step)));
  });
  new MutationObserver(mark).observe(document.documentElement, { childList: true, subtree: true });

  byId("banner").querySelector("button").addEventListener("click", () => { pause = FIRST_MS; open(); });
  times(document);
  open();
})();
