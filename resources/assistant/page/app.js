/** The page: a question goes to the tuned model and to its base at once, and their answers stream side by side. */

import { Answer } from "./answer.js";
import { announce, byId, copy, counted, element, keepInView, show } from "./dom.js";
import { offerFeedback } from "./feedback.js";
import { get } from "./server.js";
import {
  bindForm, boundsFor, fillForm, modeOf, readAddress, readForm, showMistake, usualFor, writeAddress,
} from "./settings.js";

const WIDE = "(min-width: 62em)"; // as in style.css: the settings stand beside the conversation

let assistant; // what the server says of itself
let usual; // the settings to begin with
let bounds;
let turns = []; // {question, settings, answers, view}
let asking = null; // what stops the answers that are being written
let waiting = []; // questions of a link that come into the box one after another

/** Learn what is served, and open the page for questions. */
async function start() {
  try {
    assistant = await get("assistant");
  } catch (error) {
    const again = element("button", { type: "button", onclick: () => location.reload() }, "Try again");
    byId("failure").replaceChildren(element("p", {}, error.message), again);
    byId("failure").hidden = false;
    return;
  }
  usual = usualFor(assistant);
  bounds = boundsFor(assistant);
  introduce();
  bindForm(assistant, bounds);
  byId("settings-fold").open = matchMedia(WIDE).matches;
  byId("composer").hidden = false;
  openAddress();
  listen();
  refresh();
}

/** Say which model this is, where it comes from and how it did, and offer questions to begin with. */
function introduce() {
  document.title = assistant.base ? `${assistant.title} beside its base` : assistant.title;
  show("title", assistant.title);
  show("summary", assistant.summary);
  show("source", assistant.source, "source-row");
  show("verdict", assistant.verdict, "verdict-row");
  byId("verdict").classList.toggle("passed", assistant.verdict.startsWith("passed"));
  byId("invitation").textContent = assistant.base
    ? "Ask a question: the tuned model and its base answer side by side."
    : "Ask the tuned model a question.";
  const examples = assistant.examples.slice(0, 4).map((question) =>
    element("li", {}, element("button", { type: "button", onclick: () => suggest(question) }, question)),
  );
  byId("examples").replaceChildren(...examples);
  if (assistant.feedback) {
    const { name, notice } = assistant.feedback;
    show("feedback-notice", `Feedback (${name}): ${notice}`);
  }
}

/** Put a question into the box; the person sends it. */
function suggest(question) {
  byId("question").value = question;
  byId("question").focus();
}

/** Take settings and questions from the address. Nothing is sent. */
function openAddress() {
  const { settings, questions, refused } = readAddress(location.hash, usual, bounds, Boolean(assistant.base));
  fillForm(settings);
  waiting = questions;
  if (waiting.length) byId("question").value = waiting.shift();
  tellOfLink(refused);
}

/** Say what of the address was not taken, and which of its questions are still to come. */
function tellOfLink(refused = []) {
  const sentences = refused.length ? [`Not taken from the address: ${refused.join("; ")}.`] : [];
  if (waiting.length) sentences.push(`${counted(waiting.length, "more question")} of the link will follow in the box.`);
  show("notice", sentences.join(" "));
}

function listen() {
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    sendQuestion();
  });
  byId("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    sendQuestion();
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && asking?.abort());
  document.addEventListener("input", (event) => event.target.form === byId("settings") && settingsChanged());
  byId("settings").addEventListener("submit", (event) => event.preventDefault());
  byId("reset").addEventListener("click", () => {
    fillForm(usual);
    settingsChanged();
    announce("The settings are as at the beginning.");
  });
  byId("stop").addEventListener("click", () => asking?.abort());
  byId("retry").addEventListener("click", retry);
  byId("renew").addEventListener("click", renew);
  byId("link").addEventListener("click", copyLink);
  window.addEventListener("hashchange", () => {
    openAddress();
    refresh();
  });
}

/** Keep the address in step with the form, as long as the form can be taken. */
function settingsChanged() {
  const settings = readForm();
  show("link-told", "");
  if (settings) history.replaceState(null, "", writeAddress(settings));
  refresh();
}

/** Send what is in the box, and put the link's next question there. */
function sendQuestion() {
  const question = byId("question").value.trim();
  if (!question || asking) return;
  if (!readForm()) return showMistake();
  byId("question").value = waiting.shift() ?? "";
  tellOfLink();
  ask(question);
}

/** Ask the last question again, with the settings as they are now. */
function retry() {
  if (!turns.length || asking) return;
  if (!readForm()) return showMistake();
  const last = turns.pop();
  last.view.remove();
  ask(last.question);
}

/** Ask all chosen sides at once, and wait until each has ended. */
async function ask(question) {
  const settings = readForm();
  const turn = { question, settings, answers: answersTo(question, settings) };
  turn.view = drawTurn(turn, turns.length + 1);
  turns.push(turn);
  const stopping = (asking = new AbortController());
  byId("conversation").append(turn.view);
  refresh();
  turn.view.scrollIntoView({ block: "start" });
  await Promise.all(turn.answers.map((answer) => answer.receive(stopping.signal)));
  if (asking === stopping) asking = null;
  if (assistant.feedback) keepInView(() => offerFeedback(turn));
  refresh();
}

/** An empty answer for each side that is asked. */
function answersTo(question, settings) {
  const sides = [
    { name: "Tuned", model: assistant.tuned, asked: settings.ask !== "base" },
    { name: "Base", model: assistant.base, asked: settings.ask !== "tuned" },
  ].filter((side) => side.asked);
  return sides.map((side) => {
    const messages = messagesFor(side.model, question, settings.system);
    return new Answer(side, messages, settings, assistant.context_tokens, turns.length + 1);
  });
}

/** What a side reads: the system prompt, the turns that it answered itself, and the question. */
function messagesFor(model, question, system) {
  const messages = system.trim() ? [{ role: "system", content: system }] : [];
  for (const turn of turns) {
    const answer = turn.answers.find(({ side }) => side.model === model);
    if (!answer?.isHistory) continue;
    messages.push({ role: "user", content: turn.question }, answer.message);
  }
  return [...messages, { role: "user", content: question }];
}

function drawTurn({ question, settings, answers }, number) {
  const { temperature, seed } = settings;
  const how = temperature === 0 ? "greedy" : `temperature ${temperature}, seed ${seed}`;
  return element(
    "article",
    { class: "turn", "aria-label": `Question ${number}` },
    element("h2", {}, `Question ${number}`, element("span", {}, ` · ${how}`)),
    element("p", { class: "question plain" }, question),
    element("div", { class: "answers" }, ...answers.map((answer) => answer.view)),
  );
}

/** Stop what is being written, and forget the turns. */
function renew() {
  asking?.abort();
  asking = null;
  for (const turn of turns) turn.view.remove();
  turns = [];
  waiting = [];
  tellOfLink();
  refresh();
  byId("question").focus();
  announce("A new conversation.");
}

/** Copy the address of the settings and of the questions asked; where copying is not allowed, put it in the bar. */
async function copyLink() {
  const settings = readForm();
  if (!settings) return showMistake();
  const hash = writeAddress(settings, turns.map(({ question }) => question));
  const copied = await copy(new URL(hash, location.href).href);
  if (!copied) history.replaceState(null, "", hash);
  show("link-told", copied ? "The link is copied." : "The browser does not allow copying: the link is in the address bar.");
}

/** Show which controls can be used now; the focus goes along where its button is exchanged. */
function refresh() {
  const settings = readForm();
  byId("mode").textContent = settings ? `Answers are ${modeOf(settings, usual)}.` : "A setting cannot be taken.";
  byId("welcome").hidden = turns.length > 0;
  const [shown, hidden] = asking ? ["stop", "send"] : ["send", "stop"];
  byId(shown).hidden = false;
  if ([hidden, asking && "retry"].includes(document.activeElement.id)) byId(shown).focus();
  byId(hidden).hidden = true;
  byId("retry").disabled = !turns.length || Boolean(asking);
  byId("renew").disabled = !turns.length;
}

start();
