/** The settings: their bounds, the form that shows them, and the address that shares them.
 *
 * An address is `#ask=both&temperature=0&max_tokens=256&seed=0&system=Be+brief.&question=Who%3F&question=Why%3F`.
 * Anyone can write one, so each value is held to the bounds, and nothing is sent because an address says so.
 */

import { byId } from "./dom.js";

const MOST_QUESTIONS = 50;
const MOST_CHARACTERS = 20_000; // of a question or a system prompt in an address
const ASKED = ["both", "tuned", "base"];
const NUMBERS = ["temperature", "max_tokens", "seed"];

/** The bounds of each number, for what this server says that it takes. */
export const boundsFor = (assistant) => ({
  temperature: { least: 0, most: 2, whole: false },
  max_tokens: { least: 1, most: Math.max(assistant.most_tokens, assistant.max_tokens), whole: true },
  seed: { least: 0, most: 2 ** 31 - 1, whole: true },
});

/** The settings as the model was examined with them. */
export const usualFor = (assistant) => ({
  ask: assistant.base ? "both" : "tuned",
  temperature: 0,
  max_tokens: assistant.max_tokens,
  seed: 0,
  system: assistant.system.replace(/\r\n?/g, "\n"), // as a text field gives it back
});

/** The settings and the questions in an address; `refused` says in a sentence each what was not taken. */
export function readAddress(hash, usual, bounds, withBase) {
  const asked = new URLSearchParams(hash.replace(/^#/, ""));
  const settings = { ...usual };
  const refused = [];
  for (const name of NUMBERS) {
    if (!asked.has(name)) continue;
    const value = numberWithin(asked.get(name), bounds[name]);
    if (value === null) refused.push(`${name} is not ${describe(bounds[name])}`);
    else settings[name] = value;
  }
  const ask = asked.get("ask");
  if (ask !== null) {
    if (ask === "tuned" || (withBase && ASKED.includes(ask))) settings.ask = ask;
    else refused.push("who is asked is not known here");
  }
  if (asked.has("system")) settings.system = asked.get("system").slice(0, MOST_CHARACTERS);
  const questions = asked.getAll("question").filter((question) => question.trim());
  if (questions.length > MOST_QUESTIONS) refused.push(`only the first ${MOST_QUESTIONS} questions are taken`);
  if ([asked.get("system") ?? "", ...questions].some((text) => text.length > MOST_CHARACTERS)) {
    refused.push(`texts are cut at ${MOST_CHARACTERS} characters`);
  }
  return {
    settings,
    questions: questions.slice(0, MOST_QUESTIONS).map((question) => question.slice(0, MOST_CHARACTERS)),
    refused,
  };
}

/** The address of these settings, and of questions where it is a link for someone else. */
export function writeAddress(settings, questions = []) {
  const pairs = ["ask", ...NUMBERS, "system"].map((name) => [name, settings[name]]);
  return `#${new URLSearchParams([...pairs, ...questions.map((question) => ["question", question])])}`;
}

/** A number in plain decimals within its bounds, else null. */
function numberWithin(text, { least, most, whole }) {
  if (!(whole ? /^\d{1,10}$/ : /^\d{1,10}(\.\d{1,10})?$/).test(text)) return null;
  const value = Number(text);
  return value >= least && value <= most ? value : null;
}

const describe = ({ least, most, whole }) => `${whole ? "a whole number" : "a number"} from ${least} to ${most}`;

/** Give the fields the bounds that this server has. */
export function bindForm(assistant, bounds) {
  for (const name of NUMBERS) byId(name).max = bounds[name].most;
  byId("max_tokens-hint").textContent =
    `From 1 to ${bounds.max_tokens.most}; the model reads and writes ${assistant.context_tokens} tokens at most.`;
  byId("system-hint").textContent = assistant.system
    ? "It begins as in the training rows."
    : "The training rows have none.";
  byId("chooser").hidden = !assistant.base;
}

/** Show the settings in the form. */
export function fillForm(settings) {
  for (const name of [...NUMBERS, "system"]) byId(name).value = settings[name];
  document.querySelector(`input[name="ask"][value="${settings.ask}"]`).checked = true;
}

/** The settings in the form, or null where a field has a value that cannot be taken. */
export function readForm() {
  const form = byId("settings");
  if (!form.checkValidity()) return null;
  const fields = new FormData(form);
  const settings = { ask: fields.get("ask"), system: byId("system").value };
  for (const name of NUMBERS) settings[name] = Number(fields.get(name));
  return settings;
}

/** Show the first field whose value cannot be taken, where the browser says what is wrong with it. */
export function showMistake() {
  byId("settings-fold").open = true;
  byId("settings").reportValidity();
}

/** What a reader of an answer should know about how its tokens were chosen. */
export function modeOf(settings, usual) {
  const chosen = settings.temperature === 0 ? "greedy, as in the exam" : "sampled: not examined";
  return settings.system === usual.system ? chosen : `${chosen}; another system prompt than in training`;
}
