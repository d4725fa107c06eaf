// What a reader does with the page: follow links into what is folded, sort, filter, open and draw everything.
(async () => {
  // Put what a folded element or a list has beyond its first rows where it belongs, once.
  const begun = new Map();
  const once = (name, place, then) => {
    if (!begun.has(name)) begun.set(name, inert(name).then(({ head }) => (place.insertAdjacentHTML("beforeend", head.html), then?.())));
    return begun.get(name);
  };
  const unfold = (details) => once(details.dataset.inert, details, () => overTime.watch(details));
  const lists = [...document.querySelectorAll("[data-more]")];
  const lengthen = (button) => {
    const { more } = button.dataset;
    return once(`more-${more}`, document.getElementById(`rows-${more}`), () => button.closest(".more").remove());
  };
  for (const button of lists) button.addEventListener("click", () => lengthen(button));
  const lengthenAll = () => Promise.all(lists.map(lengthen));
  document.addEventListener("toggle", ({ target }) => target.open && target.dataset.inert && unfold(target), true);

  const reveal = async () => {
    const name = decodeURIComponent(location.hash.slice(1));
    if (!name) return;
    const { incidents } = (await overTime.drawing).head;
    const camera = document.getElementById(incidents[name] ?? name);
    if (camera?.dataset.inert) await unfold(camera);
    const target = document.getElementById(name);
    for (let folded = target?.closest("details"); folded; folded = folded.parentElement.closest("details")) folded.open = true;
    target?.scrollIntoView();
  };
  addEventListener("hashchange", reveal);

  for (const button of document.querySelectorAll(".sortable th button")) {
    button.addEventListener("click", async () => {
      await lengthenAll();
      const header = button.closest("th");
      const body = button.closest("table").tBodies[0];
      const sign = header.getAttribute("aria-sort") === "descending" ? 1 : -1;
      const column = header.cellIndex;
      const value = (row) => Number(row.cells[column].dataset.value);
      const order = (a, b) => (Number.isNaN(a) ? 1 : Number.isNaN(b) ? -1 : sign * (a - b));
      body.append(...[...body.rows].sort((a, b) => order(value(a), value(b))));
      for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    });
  }

  const filter = document.getElementById("filter");
  const states = [...document.querySelectorAll("[data-only]")];
  const apply = async () => {
    await lengthenAll();
    const wanted = filter?.value.trim().toLowerCase() ?? "";
    const only = states.find((button) => button.ariaPressed === "true")?.dataset.only;
    let count = 0;
    for (const element of document.querySelectorAll("[data-find]")) {
      const { find, state } = element.dataset;
      element.hidden = !find.toLowerCase().includes(wanted) || (only !== undefined && state !== only);
      if (!element.hidden && element.matches(".camera")) count += 1;
    }
    if (filter) document.getElementById("filtered").textContent = wanted || only ? `${count} shown` : "";
  };
  filter?.addEventListener("input", apply);
  for (const button of states) {
    button.addEventListener("click", () => {
      for (const other of states) other.ariaPressed = String(other === button && other.ariaPressed !== "true");
      apply();
    });
  }

  document.addEventListener("click", async ({ target }) => {
    if (!target.matches("[data-copy]")) return;
    const code = target.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      target.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code); // where a browser forbids it: what is chosen can be copied by hand
    }
  });

  const cameras = [...document.querySelectorAll(".camera")];
  const said = document.getElementById("drawn-told");
  document.getElementById("open-all").addEventListener("click", async () => {
    const chosen = cameras.filter((camera) => !camera.hidden);
    for (const [i, camera] of chosen.entries()) {
      camera.open = true;
      await unfold(camera);
      await overTime.drawGroup(camera.querySelector(".over-time"));
      said.textContent = `${i + 1} of ${chosen.length} drawn`;
      await new Promise((resolve) => setTimeout(resolve));
    }
    said.textContent = `${chosen.length} drawn: the page can be printed in full`;
    said.dataset.done = "yes";
  });
  document.getElementById("close-all").addEventListener("click", () => cameras.forEach((camera) => (camera.open = false)));

  reveal();
  overTime.watch(document);
  performance.mark("ready");
  // What is above the cameras is drawn for paper, too, where nobody scrolls; between figures the page answers.
  const specs = JSON.parse(document.getElementById("specs").textContent);
  for (const [id, spec] of Object.entries(specs)) {
    await new Promise((resolve) => setTimeout(resolve));
    await drawFigure(document.getElementById(id), spec);
  }
  await overTime.drawGroup(document.querySelector("#overall .over-time"));
  performance.mark("drawn");
  document.documentElement.dataset.drawn = "yes";
})();
