"use strict";
// What the pages of all cameras and of one camera draw alike. Texts are inserted as text, never as markup.
const parts = (() => {
  const STATES = ["failing", "silent", "rejected", "frozen", "changed", "ok"];
  const MARKS = { // SVG paths in a square of 16
    failing: "M8 1L15.5 14.5H.5z", rejected: "M8 1L15 8L8 15L1 8z", silent: "M2 2h12v12h-12z",
    frozen: "M2.5 2h4v12h-4zM9.5 2h4v12h-4z", changed: "M1 10.5H7V5.5H15", ok: "M8 2a6 6 0 1 0 .001 0z",
  };
  const MEANINGS = {
    "forwards per image (FE)": "forward equivalents: passes through the image tower for each image; plain CLIP has 1",
    "entropy": "mean entropy of the served probabilities; 0 is sure of one class",
    "confidence": "mean probability of the served label",
    "agreement": "share of images to which zero-shot and fine-tuned give the same label, where both were evaluated",
    "last reset": "why the camera's state, or a part of it, was dropped the last time",
    "rejected": "images that could not be read, by reason",
    "dead letters": "messages that could not be read, sent to a topic of their own",
    "lag": "messages that have no durable row yet",
    "oldest": "age of the oldest message that has no durable row yet",
    "method": "how alpha is chosen, and by which objective",
    "label of results": "the column that results and alerts have as label: the model's, or the one that the scene corrects",
    "shared layers": "layers that are equal in both models are computed once an image, whatever alphas are tried",
    "model (fingerprint)": "hash of checkpoints, classes, preprocessing and precision; each row of the output has it",
    "card": "hash of the pair's card, its calibration",
  };
  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 120, TOP = 3, BOTTOM = 25, BRIDGED = 12, LEAST = 24;
  let skewed = 0; // from the time of performance.now() to the Unix time of the worker, in seconds

  const element = (name, kind, text) => {
    const made = document.createElement(name);
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const drawn = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const mark = (state) => {
    const svg = drawn("svg", { viewBox: "0 0 16 16", class: `mark ${state}`, "aria-hidden": "true" });
    svg.append(drawn("path", state === "changed" ? { d: MARKS[state], fill: "none", "stroke-width": 3 } : { d: MARKS[state], "stroke-width": 0 }));
    return svg;
  };
  const whole = (n) => n < 10_000 ? String(n) : n < 1e6 ? `${(n / 1e3).toFixed(n < 1e5 ? 1 : 0)}k` : `${(n / 1e6).toFixed(1)}M`;
  const ago = (s) => s < 100 ? `${Math.max(0, Math.round(s))} s` : s < 6_000 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
  const now = () => performance.now() / 1000 + skewed;
  const synchronise = (unix) => { skewed = unix - performance.now() / 1000; };
  const explain = (name) => MEANINGS[name] ?? "";

  // -- the line of alpha

  const spark = () => {
    const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} 28`, preserveAspectRatio: "none", class: "spark", role: "img" });
    const path = drawn("path", { class: "line" });
    svg.append(drawn("path", { class: "frame", d: `M0 ${TOP}H${WIDTH}M0 ${BOTTOM}H${WIDTH}` }), drawn("path", { class: "half", d: `M0 14H${WIDTH}` }), path);
    return { svg, path };
  };

  // While no camera has `steps` of history, the lines show a shorter time.
  const stretched = (earliest, step, steps) => Math.min(steps, Math.max(LEAST, Math.floor(now() / step) - earliest + 1));

  const spanned = (span, step) => {
    const minutes = Math.ceil(span * step / 60);
    return minutes === 1 ? "last minute" : `last ${minutes} minutes`;
  };

  const line = (curve, row, step, span) => {
    // All steps have the same width. If few steps are missing, the line continues at its level; if many, it breaks.
    const width = WIDTH / span, first = Math.floor(now() / step) - span + 1;
    let path = "", missing = Infinity;
    row.alphas.forEach((alpha, n) => {
      const at = row.first + n - first;
      if (alpha === null || at < 0) { missing += 1; return; }
      const x = (at * width).toFixed(1), y = (BOTTOM - (BOTTOM - TOP) * alpha / 100).toFixed(1);
      path += missing > BRIDGED ? `M${x} ${y}` : `H${x}V${y}`;
      path += `h${width.toFixed(1)}`;
      missing = 0;
    });
    const left = span - 1 - (row.first + row.alphas.length - 1 - first); // steps since the last batch
    if (path && left > 0 && left <= BRIDGED && row.state !== "silent") path += `h${(left * width).toFixed(1)}`;
    curve.path.setAttribute("d", path);
    curve.svg.setAttribute("aria-label", row.alpha === null ? "no batch yet" : `alpha ${row.alpha.toFixed(2)} now`);
  };

  // -- the classes that are served

  const mix = () => drawn("svg", { class: "mix", viewBox: "0 0 100 5", preserveAspectRatio: "none", "aria-hidden": "true" });

  const sees = (bars, words, classes, most) => {
    let x = 0;
    bars.replaceChildren(...classes.map(([, share]) => {
      const bar = drawn("rect", { x, y: 0, width: Math.max(0, share - 0.6), height: 5 });
      x += share;
      return bar;
    }));
    words.replaceChildren(...classes.filter(([, share]) => share).slice(0, most).flatMap(([label, share], n) => {
      const name = element("bdi", "", `${label} ${share}%`);
      return n ? [", ", name] : [name];
    }));
  };

  return { STATES, ago, element, explain, line, mark, mix, now, put, sees, spanned, spark, stretched, synchronise, whole };
})();
