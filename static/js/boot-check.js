// Not a module, on purpose: it has to say so when the modules did not start.
window.addEventListener("load", () => {
  setTimeout(() => {
    if (document.documentElement.dataset.live) return;
    document.getElementById("headline-text").textContent = "The page failed to start.";
    document.getElementById("headline-advice").textContent =
      "A script failed to load, or this browser is too old. Reload the page, or run manage.py offsets_status in a terminal.";
  }, 3000);
});
