"use strict";
// Draws one figure. Expressions are interpreted (ast), so that nothing on this page is compiled from text; whatever
// would be fetched is refused.
const draw = (() => {
  const refuse = () => Promise.reject(new Error("a figure asked for something outside of this page"));
  const loader = { load: refuse, sanitize: refuse };
  const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, loader, defaultStyle: false };
  return async (place, spec, tooltip = { disableDefaultStyle: true }) => {
    try {
      const { view } = await vegaEmbed(place, spec, { ...options, tooltip });
      place.querySelector("svg").ariaHidden = "true"; // the element around it is the image, with its sentence
      return view;
    } catch (error) {
      place.textContent = `This figure could not be drawn: ${error.message}`;
      place.classList.add("problem");
      console.error(place.id, error);
      return null;
    }
  };
})();
addEventListener("beforeprint", () => document.querySelectorAll("details:not(.on-request)").forEach((folded) => (folded.open = true)));
