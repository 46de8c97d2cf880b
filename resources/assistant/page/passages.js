/** What a question was asked with: the passages of the documents, and the citations of an answer that open them. */

import { element, keepInView } from "./dom.js";

const CITATION = /\[(\d{1,2})\]/g;

/** The passages as a list of folds, closed; `label` is what they belong to. */
export function folds(passages, label) {
  const each = passages.map(({ number, document: name, heading, text }) =>
    element(
      "details",
      { class: "passage", "data-number": number },
      element("summary", {}, `[${number}] ${[name, heading].filter(Boolean).join(" › ")}`),
      element("p", { class: "plain" }, text),
    ),
  );
  return element("section", { class: "passages", "aria-label": `Passages: ${label}` }, ...each);
}

/** Make each [2] in a text a button that opens passage 2; one that names no passage stays text. */
export function linkCitations(body, shown) {
  const walker = document.createTreeWalker(body, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) texts.push(walker.currentNode);
  for (const text of texts) text.replaceWith(...pieces(text.data, shown));
}

function pieces(text, shown) {
  const found = [];
  let end = 0;
  for (const match of text.matchAll(CITATION)) {
    const passage = shown.querySelector(`[data-number="${Number(match[1])}"]`);
    if (!passage) continue;
    found.push(text.slice(end, match.index), citation(match[0], passage));
    end = match.index + match[0].length;
  }
  return [...found, text.slice(end)];
}

function citation(text, passage) {
  const open = () =>
    keepInView(() => {
      passage.open = true;
      passage.querySelector("summary").focus();
      passage.scrollIntoView({ block: "nearest" });
    });
  return element("button", { type: "button", class: "citation", "aria-label": `Open passage ${text}`, onclick: open }, text);
}
