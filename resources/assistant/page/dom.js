/** Small tools to build the page; text is set as text and never read as HTML. */

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** A new element; an attribute that is false is left out, and one such as `onclick` is a function that listens. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** A button whose name for those who do not see it also says what it belongs to: "Copy: Tuned, question 2". */
export function button(text, belongsTo, onclick) {
  return element("button", { type: "button", "aria-label": `${text}: ${belongsTo}`, onclick }, text);
}

/** Show a text in its element, or hide the element where there is none. */
export function show(id, text, row = id) {
  byId(id).textContent = text ?? "";
  byId(row).hidden = !text;
}

/** Tell those who listen to the page; a sentence each, of which only the last few stay. */
export function announce(sentence) {
  const announcer = byId("announcer");
  announcer.append(element("p", {}, sentence));
  while (announcer.childElementCount > 6) announcer.firstElementChild.remove();
}

/** Change the page, and where the person was at its end, stay there; but a turn's beginning is not scrolled away. */
export function keepInView(change) {
  const root = document.documentElement;
  const atEnd = root.scrollHeight - root.scrollTop - root.clientHeight < 64;
  change();
  if (!atEnd) return;
  const turn = document.querySelector(".turn:last-child");
  if (turn?.getBoundingClientRect().top >= 0) turn.scrollIntoView({ block: "start" });
  else root.scrollTop = root.scrollHeight;
}

/** Copy a text; false where the browser does not allow it. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** "1 token", "2 tokens". */
export const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
