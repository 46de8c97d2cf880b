/** What a question was asked with: the passages of the documents, and the citations of an answer that open them. */

import { element, keepInView } from "./dom.js";

// As citations_in of finetuning/knowledge/context.py has them: [2], [1, 2] and 【2】; right after a word, as in rows[1],
// at the end of a sentence or line alone.
const NUMBERS = String.raw`\d{1,2}(?:\s*[,;]\s*\d{1,2})*`;
const GROUP = String.raw`(?:\[${NUMBERS}\]|【${NUMBERS}】)`;
const AT_END = String.raw`(?=(?:\s*[,;]?\s*${GROUP})*["'”’)]*(?:[.!?…]+["'”’)]*(?!\S)|[。！？]|\s*$))`;
const CITATION = new RegExp(String.raw`(?<![\p{L}\p{N}_])${GROUP}|(?<=\s\S*|\p{N})${GROUP}${AT_END}`, "gmu");

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

/** Make each [2] in a text a button that opens passage 2, and each number in [1, 2]; what names none stays text. */
export function linkCitations(body, shown) {
  const walker = document.createTreeWalker(body, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) texts.push(walker.currentNode);
  for (const text of texts) text.replaceWith(...pieces(text.data, shown));
}

function pieces(text, shown) {
  const found = [];
  let end = 0;
  for (const { start, label, number } of named(text)) {
    const passage = shown.querySelector(`[data-number="${number}"]`);
    if (!passage) continue;
    found.push(text.slice(end, start), citation(label, passage));
    end = start + label.length;
  }
  return [...found, text.slice(end)];
}

/** The numbers of passages that a text names, with what stands for each: its brackets too where it is alone in them. */
export function named(text) {
  return [...text.matchAll(CITATION)].flatMap(({ 0: group, index }) => {
    const numbers = [...group.matchAll(/\d+/g)];
    if (numbers.length === 1) return [{ start: index, label: group, number: Number(numbers[0][0]) }];
    return numbers.map((one) => ({ start: index + one.index, label: one[0], number: Number(one[0]) }));
  });
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
