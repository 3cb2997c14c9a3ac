// Not a module, on purpose: it has to say so when the modules did not start.
window.addEventListener("load", () => {
  setTimeout(() => {
    if (document.documentElement.dataset.live) return;
    document.getElementById("headline-text").textContent = "This page has not started.";
    document.getElementById("headline-advice").textContent =
      "Part of its script did not load, or this browser is too old for it. Reload the page; in a terminal, manage.py offsets_status shows the same.";
  }, 3000);
});
