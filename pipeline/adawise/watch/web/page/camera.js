"use strict";
// One camera: its facts are fetched every few seconds while the page is visible. Nodes stay, and only texts that have
// changed are replaced, so that a selection stays and a screen reader keeps its place.
(() => {
  const { ago, element, explain, line, mark, mix, now, put, sees, spanned, spark, stretched, synchronise } = parts;
  const PERIOD_MS = 3_000, PATIENCE_MS = 10_000;
  const at = (id) => document.getElementById(id);
  const curve = spark(), bars = mix(), drawn = new Map();
  let updated = 0, view = null;
  at("spark").append(curve.svg);
  at("mix").append(bars);

  function once(part, data, draw) {
    const content = JSON.stringify(data);
    if (drawn.get(part) === content) return;
    drawn.set(part, content);
    draw(data);
  }

  const coded = (text) => text.split("`").map((words, n) => n % 2 ? element("code", "", words) : words);

  function head({ name, state, why }) {
    put(at("name"), name);
    put(at("state"), state);
    put(at("why"), why);
    at("state").className = `word ${state}`;
    at("mark").replaceChildren(mark(state));
    document.title = `${name}: ${state}`;
  }

  function course() {
    const { row, step, steps } = view;
    const isAdapted = row.alpha !== null; // no batch yet, or a page of `adawise cameras`, which only reads them
    at("course").hidden = !isAdapted && !row.picture;
    at("adapted").hidden = !isAdapted;
    const span = stretched(row.alphas.length ? row.first : Infinity, step, steps);
    line(curve, row, step, span);
    put(at("value"), isAdapted ? row.alpha.toFixed(2) : "");
    put(at("past"), spanned(span, step));
    once("classes", row.classes, () => sees(bars, at("sees"), row.classes, 4));
    once("picture", row.picture, (number) => {
      at("pictured").hidden = !number;
      if (number) at("picture").src = `picture?of=${encodeURIComponent(row.key)}&v=${number}`;
    });
  }

  function facts(groups) {
    const names = groups.map(([heading, pairs]) => [heading, ...pairs.map(([name]) => name)]);
    once("names", names, () => at("groups").replaceChildren(...names.map(([heading, ...of]) => {
      const list = element("dl");
      for (const name of of) {
        const pair = element("div");
        pair.append(element("dt", "", name), element("dd"));
        if (explain(name)) pair.append(element("dd", "meaning", explain(name)));
        list.append(pair);
      }
      const group = element("section");
      group.append(element("h2", "", heading), list);
      return group;
    })));
    const cells = at("groups").querySelectorAll("dt + dd");
    groups.flatMap(([, pairs]) => pairs).forEach(([, value], n) => {
      put(cells[n], value);
      cells[n].classList.toggle("long", value.length > 24);
    });
  }

  function conditions() {
    const { conditions: known, conditions_seen: seen, row } = view;
    at("conditions").hidden = row.condition === null;
    if (row.condition === null) return;
    const times = (n) => ["", "once", "twice"][n] ?? `${n} times`;
    const numbers = "Numbers count the light, weather or content that this camera's stream has distinguished.";
    const here = row.returns ? `It is in condition ${row.condition}, into which it came back ${times(row.returns)}.` : `It is in condition ${row.condition}.`;
    put(at("count"), known.length ? `${numbers} ${seen} so far.` : `${numbers} ${here} The page of its worker lists all of them.`);
    at("known").closest("table").hidden = !known.length;
    const body = at("known");
    while (body.rows.length > known.length) body.lastElementChild.remove();
    known.forEach((each, n) => {
      const cells = [
        each.current ? `${each.number}, now` : String(each.number),
        each.alpha === null ? "–" : each.alpha.toFixed(2),
        each.returns ? times(each.returns) : "–",
        each.seen === null ? "before this worker had the camera" : `${ago(now() - each.seen)} ago`,
      ];
      const line = body.rows[n] ?? body.insertRow();
      line.className = each.current ? "current" : "";
      cells.forEach((text, column) => put(line.cells[column] ?? line.insertCell(), text));
    });
  }

  const hints = (found) => at("hints").replaceChildren(...found.map(({ heading, steps }) => {
    const section = element("section", "hint");
    section.append(element("h2", "", heading));
    for (const [words, command] of steps) {
      const sentence = element("p");
      sentence.append(...coded(words));
      section.append(sentence);
      if (!command) continue;
      const block = element("pre");
      block.append(element("code", "", command));
      section.append(block);
    }
    return section;
  }));

  function show() {
    const { name, state, why } = view.row;
    once("head", { name, state, why }, head);
    put(at("title"), view.title);
    course();
    facts(view.facts);
    conditions();
    once("hints", view.hints, hints);
    document.documentElement.dataset.drawn = "1";
  }

  function away(why) {
    put(at("away"), updated ? `${why} Below is the state of ${new Date(updated).toLocaleTimeString()}.` : why);
    at("away").hidden = false;
    document.body.classList.add("away");
  }

  async function take() {
    const signal = AbortSignal.timeout(PATIENCE_MS); // no error comes with a connection that was cut silently
    const answer = await fetch(`camera.json${location.search}`, { signal }).catch(() => null);
    if (answer?.status === 401) { location.reload(); return; } // shows the login form
    const found = answer?.ok ? await answer.json().catch(() => null) : null;
    if (!found) {
      away(answer?.status === 404 ? "This page does not know the camera any more." : "The worker does not answer.");
      return;
    }
    view = found;
    synchronise(view.now);
    updated = Date.now();
    at("away").hidden = true;
    document.body.classList.remove("away");
    show();
  }

  async function turn() {
    if (!document.hidden) await take().catch((error) => away(String(error)));
    setTimeout(turn, PERIOD_MS);
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden) take().catch((error) => away(String(error))); });
  turn();
})();
