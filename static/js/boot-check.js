// Not a module, on purpose: it reports that the modules failed to start.
window.addEventListener("load", () => {
  /** @type {(id: string, text: string) => void} */
  const show = (id, text) => document.getElementById(id)?.replaceChildren(text);
  setTimeout(() => {
    if (document.documentElement.dataset.live) return;
    show("headline-text", "The page failed to start.");
    show(
      "headline-advice",
      "A script failed to load, or this browser is too old. Reload the page, or run manage.py offsets_status in a terminal.",
    );
  }, 3000);
});
