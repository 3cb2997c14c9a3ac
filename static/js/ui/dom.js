// Small tools for the document. Each writes only what differs: an untouched node costs no layout.

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children (nodes or text). */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) setAttribute(node, name, value);
  node.append(...children);
  return node;
}

export function setText(node, text) {
  const first = node.firstChild;
  if (first && first === node.lastChild && first.nodeType === Node.TEXT_NODE) {
    if (first.data !== text) first.data = text;
  } else if (first || text) {
    node.textContent = text;
  }
}

/** Null, undefined and false take the attribute away. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else {
    const text = value === true ? "" : String(value);
    if (node.getAttribute(name) !== text) node.setAttribute(name, text);
  }
}

export const setHidden = (node, hidden) => setAttribute(node, "hidden", hidden);

const SVG = "http://www.w3.org/2000/svg";

/** A picture from the page's sprite; decoration, since words stand beside it. */
export function icon(name, className = "") {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("class", `icon ${className}`.trim());
  picture.setAttribute("aria-hidden", "true");
  picture.setAttribute("focusable", "false");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#${name}`);
  picture.append(use);
  return picture;
}

export const setIcon = (picture, name) => setAttribute(picture.firstElementChild, "href", `#${name}`);

/** Keep `parent`'s children from `place` on in step with `items`: made once per key, moved only when they must be. */
export function keyed(parent, nodes, items, keyOf, create, update, place = parent.firstElementChild) {
  const gone = new Set(nodes.keys());
  for (const item of items) {
    const key = keyOf(item);
    gone.delete(key);
    let node = nodes.get(key);
    if (!node) nodes.set(key, (node = create(item)));
    if (node.root === place) place = place.nextElementSibling;
    else parent.insertBefore(node.root, place);
    update(node, item);
  }
  for (const key of gone) {
    nodes.get(key).root.remove();
    nodes.delete(key);
  }
}
