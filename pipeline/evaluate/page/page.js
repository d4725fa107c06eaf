"use strict";
// Draws every figure from the JSON beside it. Expressions are interpreted (ast), so that nothing on this page is
// compiled from text; whatever would be fetched is refused.
(async () => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const refuse = () => Promise.reject(new Error("a figure asked for something outside of this page"));
  const loader = { load: refuse, sanitize: refuse };
  const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, loader, defaultStyle: false };
  const tooltip = { disableDefaultStyle: true };
  for (const [id, spec] of Object.entries(specs)) {
    const place = document.getElementById(id);
    try {
      await vegaEmbed(place, spec, { ...options, tooltip });
    } catch (error) {
      place.textContent = `This figure could not be drawn: ${error.message}`;
      place.classList.add("problem");
      console.error(id, error);
    }
  }
  document.documentElement.dataset.drawn = "yes";
})();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((folded) => (folded.open = true)));
