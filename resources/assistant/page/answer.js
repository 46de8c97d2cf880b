/** One answer of one model: what has arrived, how fast, why it ended, and how it is shown. */

import { announce, button, copy, counted, element, keepInView } from "./dom.js";
import { folds, linkCitations } from "./passages.js";
import { chunks, post } from "./server.js";

const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(milliseconds < 9950 ? 2 : 1)} s`;

export class Answer {
  /** `side` is {model, name}; `messages` are what the model has to read. */
  constructor(side, messages, settings, contextTokens, number) {
    Object.assign(this, { side, messages, settings, contextTokens });
    this.label = `${side.name}, question ${number}`;
    this.text = "";
    this.calls = []; // of tools: {name, arguments}
    this.pieces = 0;
    this.tokens = null; // as the server counts them, at the end
    this.reason = null; // "stop", "length", "tool_calls"; "stopped" by the person, "failed"
    this.draw();
  }

  /** Whether the model came to an end by itself, so that its answer can be judged. */
  get complete() {
    return ["stop", "length", "tool_calls"].includes(this.reason);
  }

  /** Whether it belongs to what the model reads with the next question. */
  get isHistory() {
    return this.complete || (this.reason === "stopped" && this.text !== "");
  }

  /** What the model reads of it later; whether it reads what it thought then is for the chat template to say. */
  get message() {
    const thought = this.thoughts?.textContent;
    return { role: "assistant", content: this.text, ...(thought && { reasoning_content: thought }) };
  }

  draw() {
    this.body = element("div", { class: "body plain" });
    this.figures = element("p", { class: "figures" }, "Waiting for the first token…");
    this.notes = element("div", { class: "notes" });
    this.actions = element("div", { class: "actions" });
    this.view = element(
      "section",
      { class: `answer ${this.side.name.toLowerCase()}`, "aria-label": this.label, "aria-busy": "true" },
      element("h3", {}, this.side.name, " ", element("code", {}, this.side.model)),
      this.body, this.notes, this.figures, this.actions,
    );
  }

  /** Ask the model, and show what comes until it ends, fails, or `signal` stops it. */
  async receive(signal) {
    const { temperature, max_tokens, seed } = this.settings;
    const request = {
      model: this.side.model, messages: this.messages, temperature, max_tokens, seed,
      stream: true, stream_options: { include_usage: true },
    };
    this.startedAt = performance.now();
    try {
      for await (const chunk of chunks(request, signal)) this.take(chunk);
      this.reason ??= "stop";
    } catch (error) {
      this.reason = signal.aborted ? "stopped" : "failed";
      if (!signal.aborted) this.note(error.message, "error");
    }
    await this.end();
  }

  /** Take one chunk: a piece of text, of reasoning or of a tool's call, the reason of the end, or the usage. */
  take(chunk) {
    if (chunk.left_out_turns) {
      this.note(`${counted(chunk.left_out_turns, "earlier turn")} did not fit and was not read.`);
    }
    if (chunk.passages) {
      this.shown = folds(chunk.passages, this.label);
      keepInView(() => this.figures.before(this.shown));
    }
    this.tokens = chunk.usage?.completion_tokens ?? this.tokens;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    const { content, reasoning_content: reasoning, tool_calls: calls = [] } = choice.delta ?? {};
    if (content || reasoning || calls.length) this.clock();
    if (content) this.write(content);
    if (reasoning) keepInView(() => this.reasoning().append(reasoning));
    for (const call of calls) this.takeCall(call);
    this.reason = choice.finish_reason ?? this.reason;
  }

  /** Remember when the first and the last piece came. */
  clock() {
    this.lastAt = performance.now();
    this.pieces += 1;
    if (this.firstAt) return;
    this.firstAt = this.lastAt;
    this.figures.textContent = "Writing…";
    announce(`${this.side.name} begins to answer.`);
  }

  write(content) {
    this.text += content;
    keepInView(() => this.body.append(content));
  }

  /** The fold that holds the reasoning, made when the first of it comes. */
  reasoning() {
    if (!this.thoughts) {
      this.thoughts = element("div", { class: "plain" });
      this.body.before(element("details", {}, element("summary", {}, "Reasoning"), this.thoughts));
    }
    return this.thoughts;
  }

  /** Put the pieces of a tool's call together; its arguments come in parts. */
  takeCall({ index = 0, function: part = {} }) {
    const call = (this.calls[index] ??= { name: "", arguments: "" });
    call.name += part.name ?? "";
    call.arguments += part.arguments ?? "";
  }

  note(sentence, kind = "note") {
    keepInView(() => this.notes.append(element("p", { class: kind }, sentence)));
  }

  /** Show what can only be known at the end. */
  async end() {
    for (const call of this.calls.filter(Boolean)) this.note(`Calls ${call.name}(${call.arguments})`, "call");
    const why = this.whyCut();
    if (why) this.note(why);
    this.figures.textContent = this.measured();
    this.figures.hidden = !this.firstAt;
    if (this.text) this.actions.prepend(this.copyButton());
    else if (this.complete && !this.calls.length) this.body.append(element("em", {}, "An empty answer"));
    this.view.setAttribute("aria-busy", "false");
    const failure = this.reason === "failed" ? this.notes.lastElementChild.textContent : "";
    announce(`${this.side.name} has ended. ${failure || why || this.figures.textContent}`);
    await this.format();
  }

  /** Why the answer is not whole, else nothing. */
  whyCut() {
    if (this.reason === "stopped") return "Stopped by you.";
    if (this.reason !== "length") return "";
    const at = this.tokens ?? this.settings.max_tokens;
    const full = at < this.settings.max_tokens ? `, where its context of ${this.contextTokens} tokens was full` : "";
    return `Cut: ended at ${counted(at, "token")}${full}.`;
  }

  /** For example "48 tokens · 21.3 tokens/s · first token after 0.41 s". */
  measured() {
    if (!this.firstAt) return "No token came.";
    const count = this.tokens ?? this.pieces;
    const figures = [`${this.tokens === null ? "about " : ""}${counted(count, "token")}`];
    const writing = (this.lastAt - this.firstAt) / 1000;
    if (count > 1 && writing > 0) figures.push(`${((count - 1) / writing).toFixed(1)} tokens/s`);
    return [...figures, `first token after ${seconds(this.firstAt - this.startedAt)}`].join(" · ");
  }

  copyButton() {
    const made = button("Copy", this.label, async () => {
      made.textContent = (await copy(this.text)) ? "Copied" : "Not allowed";
      announce(made.textContent === "Copied" ? "Copied." : "The browser does not allow copying.");
      setTimeout(() => (made.textContent = "Copy"), 2000);
    });
    return made;
  }

  /** Replace the plain text by the server's sanitized HTML of it; where that fails the plain text stays. */
  async format() {
    if (!this.text.trim()) return;
    try {
      const { html } = await (await post("markdown", { text: this.text })).json();
      keepInView(() => {
        this.body.innerHTML = html;
        this.body.classList.remove("plain");
      });
      for (const link of this.body.querySelectorAll("a[href]")) {
        Object.assign(link, { target: "_blank", rel: "noopener noreferrer" });
      }
    } catch {
      this.body.classList.add("plain");
    }
    if (this.shown) linkCitations(this.body, this.shown);
  }
}
