// Draws every figure from the JSON beside it.
(async () => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  for (const [id, spec] of Object.entries(specs)) await draw(document.getElementById(id), spec);
  document.documentElement.dataset.drawn = "yes";
})();
