/** Building elements, and telling screen readers what changed. */

/**
 * Makes an element.
 *
 * @param {string} tag  a tag name, with classes behind points: "p.note"
 * @param {Record<string, any>} [attributes]  functions are listeners ("onclick"); null, undefined and false are left out
 * @param {...any} children  nodes, texts, and lists of them; null, undefined and false are left out
 * @returns {any} the element
 */
export function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length > 0) {
    element.classList.add(...classes);
  }
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      element.addEventListener(key.slice(2), value);
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(key, value === true ? "" : value);
    }
  }
  append(element, children);
  return element;
}

/**
 * Makes an element of a drawing.
 *
 * @param {string} name
 * @param {Record<string, string | number>} [attributes]
 * @param {...any} children
 * @returns {any}
 */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) {
      element.append(child);
    }
  }
}

/**
 * Puts these in the place of what an element has.
 *
 * @param {Element} element
 * @param {...any} children
 */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/**
 * Sets a text, unless it is there already: that would be read out again.
 *
 * @param {Element} element
 * @param {string} text
 */
export function say(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/**
 * Announces something to screen readers.
 *
 * @param {string} text
 */
export function announce(text) {
  const region = document.getElementById("announcements");
  if (region) {
    say(region, text);
  }
}

let isArriving = false;

/** The next view is one that the reader has gone to: it is to be read from its beginning. */
export function expectArrival() {
  isArriving = true;
}

/**
 * Moves the focus to what a view begins with, if the reader has just gone there. Views call it with their first contents.
 *
 * @param {HTMLElement} beginning
 */
export function arrive(beginning) {
  if (isArriving) {
    isArriving = false;
    beginning.focus();
  }
}

/**
 * Shows a message for a while, with something that can be done about it.
 *
 * @param {string} text
 * @param {{label: string, act: () => void}} [action]
 * @param {number} [milliseconds]  how long it is there
 * @returns {Promise<boolean>} true when the time has passed, false when the action was taken
 */
export function toast(text, action, milliseconds = 6000) {
  const place = document.getElementById("toasts");
  return new Promise((resolve) => {
    let timer = 0;
    const end = (passed) => {
      clearTimeout(timer);
      element.remove();
      resolve(passed);
    };
    const button =
      action &&
      h("button.link", { type: "button", onclick: () => { end(false); action.act(); } }, action.label);
    const element = h("div.toast", {}, h("span", {}, text), button);
    // Nobody has to be quick: the time stands still while the message is looked at.
    const start = () => { timer = setTimeout(() => end(true), milliseconds); };
    element.addEventListener("pointerenter", () => clearTimeout(timer));
    element.addEventListener("pointerleave", () => { clearTimeout(timer); start(); });
    place.append(element);
    start();
    button?.focus();
  });
}

/**
 * A button that copies a text.
 *
 * @param {string} label
 * @param {() => string} text
 * @returns {HTMLButtonElement}
 */
export function copyButton(label, text) {
  const button = h("button", {
    type: "button",
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(text());
        say(button, "Copied");
        announce("Copied");
      } catch {
        say(button, "Select and copy it");
      }
      setTimeout(() => say(button, label), 2000);
    },
  }, label);
  return button;
}
