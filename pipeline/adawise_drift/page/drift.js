// What is opened later is inert text until then: base64 of what zlib made of JSON, a zero, and values.
const inert = async (name) => {
  const packed = Uint8Array.from(atob(document.getElementById(`inert-${name}`).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const end = bytes.indexOf(0);
  return { head: JSON.parse(new TextDecoder().decode(bytes.subarray(0, end))), values: bytes.subarray(end + 1) };
};

// The drawing library is inert, too, until the first figure is drawn.
let drawable = null;
const drawFigure = async (place, spec) => {
  drawable ??= inert("library").then(({ head }) => {
    const script = document.createElement("script");
    script.textContent = head.html;
    document.head.append(script);
  });
  await drawable;
  return draw(place, spec);
};

// Figures over time: unpacked and drawn when they are first seen, and moved together by pointer and keys.
const overTime = (() => {
  const drawing = inert("drawing");
  const told = document.getElementById("told");
  const begun = new Map(); // element -> the promise that it is drawn
  const groups = new Map(); // element -> what is drawn in it

  // A column of 16-bit numbers: all upper bytes, then all lower ones.
  const unpack = (values, n, place, [low, step]) => {
    const upper = values.subarray(2 * n * place, 2 * n * place + n);
    const lower = values.subarray(2 * n * place + n, 2 * n * (place + 1));
    return Array.from(upper, (high, i) => (high === 255 && lower[i] === 255 ? null : low + step * (256 * high + lower[i])));
  };

  // A row for each bin that is there. Where the next is too far, a row that ends the step and one that lifts the pen;
  // where something is not known in the next, a row that ends the step.
  const rowsOf = ({ bin, runs, gap, columns, shift }, bytes) => {
    const names = Object.keys(columns);
    const bins = runs.flatMap(([first, count]) => Array.from({ length: count }, (_, k) => first + k));
    const values = names.map((name, place) => unpack(bytes, bins.length, place, columns[name]));
    const rows = [];
    bins.forEach((at, i) => {
      const row = { t: at * bin + shift, of: i };
      names.forEach((name, c) => (row[name] = values[c][i]));
      const { objective, posterior_sd: sd } = row;
      row.objective_low = objective == null || sd == null ? null : objective - sd;
      row.objective_high = objective == null || sd == null ? null : objective + sd;
      rows.push(row);
      const end = { ...row, t: (at + 1) * bin + shift, of: null };
      if (i + 1 === bins.length || bins[i + 1] - at > gap) rows.push(end, { t: end.t, of: null });
      else if (values.some((column) => column[i] !== null && column[i + 1] === null)) rows.push(end);
    });
    return rows;
  };
  const isKnown = (rows, name) => rows.some((row) => row[name] != null);

  // Accuracies, each of a time of its own; the rows of that time tell it.
  const bandsOf = (data, rows) => {
    const found = {};
    for (const [name, points] of Object.entries(data.accuracy)) {
      found[name] = points.map(([since, until, accuracy, low, high]) => (
        { since: since + data.shift, until: until + data.shift, accuracy, low, high }));
      for (const { since, until, accuracy, low, high } of found[name]) {
        for (const row of rows)
          if (row.t + data.bin > since && row.t <= until)
            Object.assign(row, { [name]: accuracy, [`${name}_low`]: low, [`${name}_high`]: high });
      }
    }
    return found;
  };

  // A row for each run of a condition: by days in the column of its day, else as high as the strip.
  const HOUR = 3_600_000;
  const daysOf = ({ calendar, shift }) => {
    const found = [];
    const { begin, cell, daily, names, runs } = calendar ?? { runs: [] };
    for (let i = 0; i < runs.length; i += 4) {
      const [from, to] = [begin + shift + cell * runs[i], begin + shift + cell * (runs[i] + runs[i + 1])];
      const place = runs[i + 2];
      const row = { daily, from, to, name: names[place] ?? "other", colour: place < names.length ? `var(--condition-${place + 1})` : "var(--range)" };
      const [day, low] = [from - runs[i + 3] * 60_000, runs[i + 3] / 60];
      if (daily) Object.assign(row, { since: day, until: day + 24 * HOUR, low, high: Math.min(24, low + (to - from) / HOUR) });
      else Object.assign(row, { since: from, until: to, low: 0, high: 24 });
      found.push(row);
    }
    return found;
  };

  const marksOf = ({ levels, marks, silences, shift }, measures) => {
    const own = marks.filter(({ measure }) => measures.includes(measure));
    const sameIncident = ({ mark: a }) => ({ mark: b }) => a.slice(1) === b.slice(1);
    const events = own.map((event, i) => ({
      ...event,
      at: event.at + shift,
      until: event.until + shift,
      mark: own.findIndex(sameIncident(event)) === i ? event.mark : "",
    }));
    return {
      levels: levels.map(([since, until, alpha]) => ({ since: since + shift, until: until + shift, alpha })),
      events,
      spans: events.filter(({ at, until }) => until > at),
      silences: silences.map(([since, until]) => ({ since: since + shift, until: until + shift })),
    };
  };

  const drawGroup = (element) => {
    if (!begun.has(element)) begun.set(element, drawPanels(element));
    return begun.get(element);
  };

  const drawPanels = async (element) => {
    const { head: data, values } = await inert(element.dataset.of);
    const { panels, since, until } = (await drawing).head;
    const whole = [since + data.shift, until + data.shift]; // by the clocks that the axis shows
    const rows = rowsOf(data, values);
    const bands = bandsOf(data, rows);
    const calendar = daysOf(data);
    const group = { element, rows: rows.filter((row) => row.of !== null), bin: data.bin, zone: data.zone, shift: data.shift, whole, views: [], span: whole, at: null };
    groups.set(element, group);
    for (const figure of element.querySelectorAll("figure")) {
      const { spec, columns, measures } = panels[figure.dataset.panel];
      const isCalendar = ["calendar", "conditions"].includes(figure.dataset.panel);
      const datasets = { points: rows, ...(isCalendar && { calendar }), ...bands, ...marksOf(data, measures) };
      const there = (name) => (name in datasets ? datasets[name].length > 0 : isKnown(rows, name));
      const layer = spec.layer.filter(({ data, encoding }) =>
        data?.name ? there(data.name) : data || there(encoding.y.field));
      const keys = document.getElementById(`keys-${figure.dataset.panel}`);
      const timed = figure.querySelector(".timed");
      if (keys) {
        const legend = keys.content.cloneNode(true);
        for (const key of legend.querySelectorAll("[data-of]")) if (!there(key.dataset.of)) key.remove();
        timed.before(legend);
      }
      await new Promise((resolve) => setTimeout(resolve)); // so that the page answers between figures
      const view = await drawFigure(figure.querySelector(".chart"), { ...spec, layer, datasets, params: startOf(spec, whole) });
      if (view) {
        const drawn = { timed, view, columns, days: datasets.calendar };
        group.views.push(drawn);
        listen(group, drawn);
      }
    }
    element.dataset.drawn = "yes";
  };

  const startOf = ({ params }, whole) => {
    const values = { since: whole[0], until: whole[1], at: null };
    return params.map(({ name }) => ({ name, value: values[name] }));
  };

  // All panels of a group, once for each frame of the screen.
  const update = (group) => {
    if (group.waiting) return;
    group.waiting = true;
    requestAnimationFrame(() => {
      group.waiting = false;
      for (const { view } of group.views) {
        view.signal("since", group.span[0]).signal("until", group.span[1]).signal("at", group.at).runAsync();
      }
    });
  };

  const show = (group, since, until) => {
    const { whole } = group;
    const least = 4 * group.bin;
    const width = Math.min(whole[1] - whole[0], Math.max(least, until - since));
    const from = Math.min(Math.max(whole[0], (since + until - width) / 2), whole[1] - width);
    group.span = [from, from + width];
    update(group);
  };
  const zoom = (group, factor, around = (group.span[0] + group.span[1]) / 2) => {
    const [since, until] = group.span;
    show(group, around - (around - since) * factor, around + (until - around) * factor);
  };
  const move = (group, share) => {
    const width = group.span[1] - group.span[0];
    show(group, group.span[0] + share * width, group.span[1] + share * width);
  };

  const number = (value, digits) =>
    value == null ? "–" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace(/^(-?)0\./, "$1.").replace("-", "−");
  const words = (row, columns, seconds, zone) =>
    [
      `${new Date(row.t).toISOString().slice(0, seconds ? 19 : 16).replace("T", " ")} ${zone}`,
      ...columns
        .filter(([name]) => row[name] !== undefined)
        .map(([name, title, digits, until]) => `${title} ${number(row[name], digits)}${until ? ` to ${number(row[until], digits)}` : ""}`),
    ].join("\n");

  const nearest = (rows, bin, moment) => {
    let [low, high] = [0, rows.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (rows[middle].t <= moment) low = middle;
      else high = middle - 1;
    }
    const next = rows[low + 1];
    return next && next.t - moment < moment - (rows[low].t + bin) ? low + 1 : low;
  };

  // A point may have several conditions: told is that of the moment pointed at, or of the middle.
  const tell = (group, { columns, days }, index, x, y, moment = group.rows[index]?.t + group.bin / 2) => {
    let row = group.rows[index];
    if (!row) return;
    if (days) row = { ...row, t: moment, condition: days.find(({ from, to }) => from <= moment && moment < to)?.name ?? null };
    group.at = days ? moment : row.t + group.bin / 2;
    group.index = index;
    update(group);
    told.textContent = words(row, columns, group.bin < 60_000, group.zone);
    told.classList.add("visible");
    const box = told.getBoundingClientRect();
    const left = x + 14 + box.width > innerWidth ? x - 14 - box.width : x + 14;
    told.style.translate = `${Math.max(0, left)}px ${Math.max(0, Math.min(y + 14, innerHeight - box.height - 4))}px`;
  };
  const quiet = (group) => {
    group.at = null;
    update(group);
    told.classList.remove("visible");
  };

  const plot = ({ timed, view }) => {
    const left = view.padding().left + view.origin()[0];
    return { box: timed.getBoundingClientRect(), left, width: view.width() };
  };
  const shareAt = (drawn, clientX) => {
    const { box, left, width } = plot(drawn);
    return Math.min(1, Math.max(0, (clientX - box.left - left) / width));
  };
  const momentAt = (group, share) => group.span[0] + share * (group.span[1] - group.span[0]);

  // In a calendar by days the moment is that of the hour pointed at, in the day pointed at.
  const pointedAt = (group, { timed, view, days }, share, clientY) => {
    const moment = momentAt(group, share);
    const day = days?.find(({ daily, since, until }) => daily && since <= moment && moment < until);
    if (!day) return moment;
    const height = (clientY - timed.getBoundingClientRect().top - view.padding().top - view.origin()[1]) / view.height();
    return day.since + 24 * HOUR * Math.min(0.999, Math.max(0, height));
  };

  const listen = (group, drawn) => {
    const { timed } = drawn;
    let from = null;
    const chosen = document.createElement("div");
    chosen.className = "chosen";
    chosen.hidden = true;
    timed.append(chosen);
    timed.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      from = shareAt(drawn, event.clientX);
      timed.setPointerCapture(event.pointerId);
    });
    timed.addEventListener("pointermove", (event) => {
      const share = shareAt(drawn, event.clientX);
      const moment = pointedAt(group, drawn, share, event.clientY);
      tell(group, drawn, nearest(group.rows, group.bin, moment), event.clientX, event.clientY, moment);
      if (from === null) return;
      const { left, width } = plot(drawn);
      chosen.hidden = false;
      chosen.style.left = `${left + width * Math.min(from, share)}px`;
      chosen.style.width = `${width * Math.abs(share - from)}px`;
    });
    const end = (event) => {
      const share = shareAt(drawn, event.clientX);
      chosen.hidden = true;
      if (from !== null && event.type === "pointerup" && Math.abs(share - from) > 0.01) {
        show(group, momentAt(group, Math.min(from, share)), momentAt(group, Math.max(from, share)));
      }
      from = null;
    };
    timed.addEventListener("pointerup", end);
    timed.addEventListener("pointercancel", end);
    timed.addEventListener("pointerleave", () => from === null && quiet(group));
    timed.addEventListener("blur", () => quiet(group));
    timed.addEventListener("dblclick", () => show(group, ...group.whole));
    timed.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(group, 1.2 ** Math.sign(event.deltaY), momentAt(group, shareAt(drawn, event.clientX)));
    }, { passive: false });
    timed.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (way && event.shiftKey) move(group, 0.2 * way);
      else if (way) step(group, drawn, way);
      else if (event.key === "+" || event.key === "=") zoom(group, 0.5);
      else if (event.key === "-") zoom(group, 2);
      else if (event.key === "0") show(group, ...group.whole);
      else if (event.key === "Escape") quiet(group);
      else return;
      event.preventDefault();
    });
  };

  // From the point told last, or from the middle of what is shown.
  const step = (group, drawn, way) => {
    const start = group.index ?? nearest(group.rows, group.bin, momentAt(group, 0.5)) - way;
    const index = Math.min(group.rows.length - 1, Math.max(0, start + way));
    const t = group.rows[index].t;
    if (t < group.span[0] || t >= group.span[1]) move(group, 0.5 * way);
    const { box, left, width } = plot(drawn);
    const share = (t - group.span[0]) / (group.span[1] - group.span[0]);
    tell(group, drawn, index, box.left + left + width * share, box.top);
  };

  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      drawGroup(target);
    }
  }, { rootMargin: "300px" });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-zoom], button[data-around]");
    if (!button) return;
    const element = button.closest(".over-time") ?? button.closest("details").querySelector(".over-time");
    const group = groups.get(element);
    if (!group) return;
    if (button.dataset.around) {
      const [since, until] = button.dataset.around.split(" ").map((moment) => Number(moment) + group.shift);
      const margin = Math.max(8 * group.bin, (group.whole[1] - group.whole[0]) / 24, until - since);
      show(group, since - margin, until + margin);
      element.scrollIntoView({ block: "start" });
    } else if (button.dataset.zoom === "all") show(group, ...group.whole);
    else zoom(group, button.dataset.zoom === "in" ? 0.5 : 2);
  });

  return { drawGroup, drawing, watch: (within) => within.querySelectorAll(".over-time").forEach((element) => seen.observe(element)) };
})();
