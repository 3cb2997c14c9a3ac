// Dark and light: the system's choice until the switch is pressed; canvases follow through `onTheme`.
import { byId } from "./dom.js";

const system = matchMedia("(prefers-color-scheme: dark)");
/** @type {(() => void)[]} */
const listeners = [];
const probe = document.createElement("span");

/** @type {(listener: () => void) => void} */
export const onTheme = (listener) => listeners.push(listener);

function changed() {
  for (const listener of listeners) listener();
}

const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

/**
 * A token's colour as canvas understands it: `light-dark()` resolves only in a real property of a real element.
 * @param {string} token
 */
export function colour(token) {
  if (!probe.isConnected) {
    probe.hidden = true;
    document.body.append(probe);
  }
  probe.style.color = `var(--${token})`;
  return getComputedStyle(probe).color;
}

export function startTheme() {
  byId("theme").addEventListener("click", () => {
    const chosen = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = chosen;
    try {
      localStorage.setItem("theme", chosen);
    } catch {
      // Storage may be forbidden: the choice lasts as long as this page.
    }
    changed();
  });
  system.addEventListener("change", changed);
  // A window on another screen has other pixels; everything painted looks blurred until it is painted again.
  matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener("change", changed);
}
