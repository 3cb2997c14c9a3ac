// Helpers for the document. Each writes only what differs: an untouched node costs no layout.

/**
 * An element that the page's template always has; its type follows from where it is assigned.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export const byId = (id) => /** @type {any} */ (document.getElementById(id));

/**
 * An element with attributes and children (nodes or text).
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} attributes
 * @param {...(Node | string)} children
 */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) setAttribute(node, name, value);
  node.append(...children);
  return node;
}

/**
 * @param {Node | null} node
 * @param {string} text
 */
export function setText(node, text) {
  const { firstChild: first, lastChild: last } = /** @type {Node} */ (node);
  if (first && first === last && first instanceof Text) {
    if (first.data !== text) first.data = text;
  } else if (first || text) {
    /** @type {Node} */ (node).textContent = text;
  }
}

/**
 * Null, undefined and false remove the attribute.
 * @param {Element} node
 * @param {string} name
 * @param {any} value
 */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else {
    const text = value === true ? "" : String(value);
    if (node.getAttribute(name) !== text) node.setAttribute(name, text);
  }
}

/** @type {(node: Element, hidden: boolean) => void} */
export const setHidden = (node, hidden) => setAttribute(node, "hidden", hidden);

const SVG = "http://www.w3.org/2000/svg";

/**
 * A picture from the page's sprite; decoration, since words stand beside it.
 * @param {string} name
 */
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

/** @type {(picture: Element, name: string) => void} */
export const setIcon = (picture, name) =>
  setAttribute(/** @type {Element} */ (picture.firstElementChild), "href", `#${name}`);

/**
 * Keep `parent`'s children from `place` on in step with `items`: created once per key, moved only when they must be.
 * @template Item
 * @template {{ root: HTMLElement }} Row
 * @param {HTMLElement} parent
 * @param {Map<any, Row>} rows
 * @param {Item[]} items
 * @param {(item: Item) => any} keyOf
 * @param {(item: Item) => Row} create
 * @param {(row: Row, item: Item) => void} update
 * @param {Element | null} place
 */
export function keyed(parent, rows, items, keyOf, create, update, place = parent.firstElementChild) {
  const gone = new Set(rows.keys());
  for (const item of items) {
    const key = keyOf(item);
    gone.delete(key);
    const row = rows.get(key) ?? create(item);
    rows.set(key, row);
    if (row.root === place) place = place.nextElementSibling;
    else parent.insertBefore(row.root, place);
    update(row, item);
  }
  for (const key of gone) {
    rows.get(key)?.root.remove();
    rows.delete(key);
  }
}
