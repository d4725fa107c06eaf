"use strict";
// Rows arrive by server-sent events: first all, then those that changed. Their content is inserted as text, never as
// markup. Each animation frame draws for FRAME_MS at most, and the next one continues, so that many rows do not block.
(() => {
  const { STATES, ago, element, explain, line, mark, mix, now, put, sees, spanned, spark, stretched, synchronise, whole } = parts;
  const PAGE = 100, FRAME_MS = 8, PATIENCE_MS = 30_000;
  const names = new Intl.Collator(undefined, { numeric: true });
  const severity = Object.fromEntries(STATES.map((state, n) => [state, n]));
  const orders = {
    state: (a, b) => severity[a.state] - severity[b.state],
    name: () => 0,
    alpha: (a, b) => (b.alpha ?? -1) - (a.alpha ?? -1),
    rate: (a, b) => b.rate - a.rate,
    fe: (a, b) => (b.fe ?? -1) - (a.fe ?? -1),
    agree: (a, b) => (a.agree ?? 101) - (b.agree ?? 101),
    lag: (a, b) => (b.lag ?? -1) - (a.lag ?? -1),
  };
  const at = (id) => document.getElementById(id);
  const rows = new Map(), nodes = new Map(), stale = new Set(), only = new Set();
  const ranks = new Map(), spare = []; // positions in the order of names; DOM nodes that may be used again
  let above = { now: 0, step: 10, steps: 60 }, span = 120, limit = PAGE, shown = [], updated = 0, source = null;
  let planned = false, arranged = false, drawnRows = 0, following = null, rest = 0, ranked = false, drawnHead = "";
  let answered = 0; // when the last update came, or the connection was begun

  // -- a row

  function build(data) {
    const node = spare.pop() ?? empty();
    node.row.dataset.key = data.key;
    node.row.className = data.comes ? "new" : "";
    node.row.tabIndex = -1;
    node.state = "";
    nodes.set(data.key, node);
    return node;
  }

  function empty() {
    const row = element("tr");
    row.setAttribute("role", "row");
    const camera = element("th");
    camera.scope = "row";
    camera.setAttribute("role", "rowheader");
    const who = element("div", "who"), name = element("a", "name"), place = element("span", "place"), word = element("span", "word"), why = element("span", "why");
    name.tabIndex = -1; // the keyboard goes by rows, and Enter opens one
    who.append(name, word, place);
    camera.append(who, why);
    const pictured = element("td", "pictured");
    const alphas = element("td", "of-alpha"), alpha = element("div", "alpha"), current = element("div", "current");
    const value = element("span", "value"), condition = element("span", "condition");
    const curve = spark();
    current.append(value, condition);
    alpha.append(curve.svg, current);
    alphas.append(alpha);
    const mixed = element("td", "of-sees"), classes = mix(), words = element("div", "sees");
    mixed.append(classes, words);
    const numbers = ["Images/s", "Forwards", "Agree", "Lag", "Last seen"].map((label) => {
      const cell = element("td", "number");
      cell.dataset.label = label;
      return cell;
    });
    for (const cell of [pictured, alphas, mixed, ...numbers]) cell.setAttribute("role", "cell");
    row.append(camera, pictured, alphas, mixed, ...numbers);
    return { row, who, name, place, word, why, pictured, curve, value, condition, mix: classes, sees: words, numbers, state: "", classes: "", picture: "" };
  }

  function fill(node, data) {
    if (node.state !== data.state) {
      node.who.querySelector(".mark")?.remove();
      node.who.prepend(mark(data.state));
      node.word.className = `word ${data.state}`;
      node.why.className = `why ${data.state}`;
      node.row.classList.toggle("is-silent", data.state === "silent");
      node.state = data.state;
    }
    put(node.name, data.name);
    node.name.title = data.name;
    node.name.href = `camera?of=${encodeURIComponent(data.key)}`;
    put(node.word, data.state === "ok" ? "" : data.state);
    put(node.place, data.at);
    put(node.why, data.why);
    put(node.value, data.alpha === null ? "" : data.alpha.toFixed(2));
    put(node.condition, data.condition === null ? "" : `condition ${data.condition}${data.returns ? ` (back ${whole(data.returns)}×)` : ""}`);
    node.condition.title = data.condition === null ? "" : `condition ${data.condition} of light, weather or content; it returned ${data.returns} times`;
    line(node.curve, data, above.step, span);
    const classes = data.classes.map(([label, share]) => `${label} ${share}%`).join(", ");
    if (node.classes !== classes) {
      sees(node.mix, node.sees, data.classes, 3);
      node.sees.title = node.classes = classes;
    }
    const [rate, fe, agree, lag] = node.numbers;
    put(rate, data.rate >= 100 ? data.rate.toFixed(0) : data.rate.toFixed(1));
    put(fe, data.fe === null ? "–" : data.fe.toFixed(2));
    fe.classList.toggle("hot", data.fe !== null && data.fe >= 2);
    put(agree, data.agree === null ? "–" : `${data.agree}%`);
    put(lag, data.lag === null ? "–" : whole(data.lag));
    age(node, data);
    const picture = data.picture ? `picture?of=${encodeURIComponent(data.key)}&v=${data.picture}` : "";
    if (!picture && node.picture) node.pictured.replaceChildren();
    else if (node.picture !== picture) {
      const image = node.pictured.firstChild ?? element("img");
      image.alt = "";
      image.loading = "lazy";
      image.src = picture;
      node.pictured.append(image);
    }
    node.picture = picture;
  }

  function age(node, data) {
    put(node.numbers[4], data.seen === null ? "–" : ago(now() - data.seen));
  }

  // -- all rows

  function wanted() {
    const words = at("filter").value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
    const by = orders[at("order").value];
    const found = [];
    for (const row of rows.values()) {
      if (only.size && !only.has(row.state)) continue;
      if (words.length) {
        row.text ??= `${row.name} ${row.at} ${row.state} ${row.classes.map(([label]) => label).join(" ")}`.toLocaleLowerCase();
        if (!words.every((word) => row.text.includes(word))) continue;
      }
      found.push(row);
    }
    if (!ranked) {
      const all = [...rows.values()].sort((a, b) => names.compare(a.name, b.name) || names.compare(a.key, b.key));
      ranks.clear();
      all.forEach((row, n) => ranks.set(row.key, n));
      ranked = true;
    }
    return found.sort((a, b) => by(a, b) || ranks.get(a.key) - ranks.get(b.key));
  }

  function arrange() {
    arranged = true;
    const found = wanted();
    shown = found.slice(0, limit);
    const keep = new Set(shown.map((row) => row.key));
    for (const [key, node] of nodes) {
      if (keep.has(key)) continue;
      node.row.remove();
      nodes.delete(key);
      if (spare.length < PAGE) spare.push(node);
    }
    [drawnRows, following] = [0, at("rows").firstChild];
    rest = found.length - shown.length;
    at("none").hidden = found.length > 0;
    put(at("none"), !rows.size ? "Waiting for the first images." : "No camera matches.");
    document.body.classList.toggle("with-pictures", shown.some((row) => row.picture));
    document.body.classList.toggle("with-conditions", shown.some((row) => row.condition !== null));
    count();
  }

  function show() {
    planned = false;
    if (!arranged) arrange();
    const body = at("rows"), until = performance.now() + FRAME_MS;
    for (; drawnRows < shown.length; drawnRows += 1) {
      if (performance.now() > until) { go(); return; }
      const data = shown[drawnRows];
      let node = nodes.get(data.key);
      if (!node) { node = build(data); stale.add(data.key); }
      if (stale.delete(data.key)) fill(node, data);
      if (node.row === following) following = following.nextSibling;
      else body.insertBefore(node.row, following);
    }
    stale.clear();
    if (!body.querySelector("tr[tabindex='0']") && body.firstChild) body.firstChild.tabIndex = 0;
    at("more").hidden = !rest;
    put(at("more"), `${rest} more; scroll down, or filter.`);
    end.unobserve(at("more"));
    end.observe(at("more")); // makes the observer report again whether it is visible
    document.documentElement.dataset.drawn = String(shown.length);
  }

  function count() {
    const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
    for (const row of rows.values()) counts[row.state] += 1;
    for (const button of at("states").children) {
      const state = button.dataset.state;
      put(button.querySelector("b"), whole(counts[state]));
      button.disabled = !counts[state] && !only.has(state);
      button.hidden = state === "frozen" && button.disabled; // only `adawise cameras` reports this state
    }
    const trouble = counts.failing + counts.rejected + counts.silent + counts.frozen;
    document.title = `${trouble ? `(${trouble}) ` : ""}${above.title ?? "AdaWiSE"}`;
  }

  function head() {
    put(at("title"), above.title);
    const content = JSON.stringify([above.facts, above.notices]);
    if (drawnHead === content) return;
    drawnHead = content;
    at("facts").replaceChildren(...above.facts.map(([name, value]) => {
      const pair = element("div", value.length > 14 ? "long" : "");
      pair.title = explain(name);
      pair.append(element("dt", "", name), element("dd", "", value));
      return pair;
    }));
    at("notices").hidden = !above.notices.length;
    at("notices").replaceChildren(...above.notices.map((text) => element("li", "", text)));
  }

  function plan() {
    arranged = false;
    go();
  }

  function go() {
    if (!planned) { planned = true; requestAnimationFrame(show); }
  }

  // -- what comes

  function take(event, all) {
    const update = JSON.parse(event.data);
    if (all) {
      for (const key of rows.keys()) stale.add(key);
      rows.clear();
      ranked = false;
    }
    above = update;
    synchronise(update.now);
    updated = answered = Date.now();
    for (const row of update.rows) {
      if (!rows.has(row.key)) [ranked, row.comes] = [false, !all];
      rows.set(row.key, joined(row));
      stale.add(row.key);
    }
    for (const key of update.gone ?? []) rows.delete(key);
    put(at("over"), update.over);
    delete above.rows;
    here();
    head();
    stretch();
    plan();
  }

  function stretch() {
    let earliest = Infinity;
    for (const row of rows.values()) if (row.alphas.length && row.first < earliest) earliest = row.first;
    const wanted = stretched(earliest, above.step, above.steps);
    if (wanted === span) return;
    span = wanted;
    put(at("past"), spanned(span, above.step));
    for (const key of nodes.keys()) stale.add(key);
  }

  function joined(row) {
    // For a row that is known, only the new end of its line is sent.
    const known = row.keep === undefined ? null : rows.get(row.key);
    if (known) {
      row.alphas = [...known.alphas.slice(row.keep - known.first, row.first - known.first), ...row.alphas];
      row.first = row.keep;
    }
    return row;
  }

  function here() {
    at("away").hidden = true;
    document.body.classList.remove("away");
  }

  function away(why) {
    if (at("away").hidden) {
      const since = updated ? ` Below is the state of ${new Date(updated).toLocaleTimeString()}.` : "";
      put(at("away"), `${why}${since} The page reconnects by itself.`);
    }
    at("away").hidden = false;
    document.body.classList.add("away");
  }

  async function listen() {
    source?.close();
    source = new EventSource("events");
    answered = Date.now();
    source.addEventListener("all", (event) => take(event, true));
    source.addEventListener("some", (event) => take(event, false));
    source.addEventListener("error", async () => {
      away("The worker does not answer.");
      if (source.readyState !== EventSource.CLOSED) return; // the browser reconnects by itself
      const status = await fetch("readyz").then(() => fetch("live.js", { method: "HEAD" })).then((answer) => answer.status, () => 0);
      if (status === 401) location.reload(); // shows the login form
      else setTimeout(listen, 5_000);
    });
  }

  // -- hands

  for (const state of STATES) {
    const button = element("button", state);
    button.type = "button";
    button.dataset.state = state;
    button.setAttribute("aria-pressed", "false");
    button.append(mark(state), element("b", "", "0"), element("span", "", state));
    button.addEventListener("click", () => {
      const on = !only.delete(state) && Boolean(only.add(state));
      button.setAttribute("aria-pressed", String(on));
      limit = PAGE;
      plan();
    });
    at("states").append(button);
  }
  at("filter").addEventListener("input", () => { limit = PAGE; plan(); });
  at("order").addEventListener("change", () => { limit = PAGE; plan(); });
  at("rows").addEventListener("focusin", (event) => {
    const row = event.target.closest("tr");
    for (const other of at("rows").querySelectorAll("tr[tabindex='0']")) other.tabIndex = -1;
    if (row) row.tabIndex = 0;
  });
  at("rows").addEventListener("click", (event) => {
    const link = event.target.closest("tr")?.querySelector("a.name");
    if (link && !event.target.closest("a") && !getSelection().toString()) link.click();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest?.("input, select, textarea");
    if (event.key === "/" && !typing) { event.preventDefault(); at("filter").focus(); at("filter").select(); }
    if (event.key === "Escape" && event.target === at("filter")) { at("filter").value = ""; limit = PAGE; plan(); at("filter").blur(); }
    if (event.key === "Enter" && event.target.matches("tbody tr")) event.target.querySelector("a.name").click();
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || (typing && !(event.target === at("filter") && step === 1))) return;
    const current = event.target.closest("tr");
    const next = current ? (step === 1 ? current.nextElementSibling : current.previousElementSibling) : at("rows").firstElementChild;
    if (next) { event.preventDefault(); next.focus(); next.scrollIntoView({ block: "nearest" }); }
  });
  const end = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && arranged && drawnRows === shown.length && shown.length >= limit) { limit += PAGE; plan(); }
  }, { rootMargin: "600px" });
  let drawnAt = 0;
  setInterval(() => {
    // An update comes every second. No error comes with a connection that was cut silently, as by a laptop that slept.
    if (Date.now() - answered > PATIENCE_MS && source.readyState === EventSource.OPEN) { away("The worker does not answer."); listen(); }
    const step = Math.floor(now() / above.step);
    if (step !== drawnAt) { // a new step began: all lines move
      drawnAt = step;
      for (const key of nodes.keys()) stale.add(key);
      plan();
      return;
    }
    for (const row of shown) {
      const node = nodes.get(row.key);
      if (node) age(node, row);
    }
  }, 1_000);
  listen();
})();
