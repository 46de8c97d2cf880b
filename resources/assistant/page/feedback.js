/** The controls by which a person judges answers. Each judgement is a record on the server that can be taken back. */

import { announce, button, element } from "./dom.js";
import { post, remove } from "./server.js";

/** Give each whole answer of a turn its controls; they compare only where all sides answered. */
export function offerFeedback(turn) {
  const judged = turn.answers.filter((answer) => answer.complete);
  const comparable = judged.length === turn.answers.length && judged.length > 1;
  for (const answer of judged) new Controls(turn, answer, judged, comparable);
}

class Controls {
  constructor(turn, answer, judged, comparable) {
    Object.assign(this, { turn, answer, judged });
    this.kept = new Map(); // "rating", "preferred" or "correction": {id, value, words}
    this.busy = false;
    answer.controls = this;
    this.toggles = [
      this.toggle("Good", "rating", "good", "good"),
      this.toggle("Bad", "rating", "bad", "bad"),
      ...(comparable ? [this.toggle("This one is better", "preferred", answer.side.model, "better")] : []),
    ];
    this.opener = button("Correct it", answer.label, () => this.openEditor());
    this.opener.setAttribute("aria-expanded", "false");
    this.takeBack = button("Take back", answer.label, () => this.change(() => this.dropAll()));
    this.state = element("p", { class: "state", hidden: true });
    answer.actions.append(...this.toggles.map(({ made }) => made), this.opener);
    answer.actions.after(this.state);
    for (const made of answer.actions.querySelectorAll("[aria-pressed], [aria-expanded]")) {
      made.setAttribute("aria-describedby", "feedback-notice");
    }
  }

  /** A button that is pressed while its judgement is kept; pressed again, it takes the judgement back. */
  toggle(text, kind, value, words) {
    const made = button(text, this.answer.label, () =>
      this.change(async () => {
        const pressed = this.kept.get(kind)?.value === value;
        await this.drop(kind);
        if (!pressed) await this.keep(kind, value, words);
      }),
    );
    made.setAttribute("aria-pressed", "false");
    return { made, kind, value };
  }

  /** Do one change at a time, and show what is kept after it, also where it failed. */
  async change(work) {
    if (this.busy) return;
    this.busy = true;
    let failure = "";
    try {
      await work();
    } catch (error) {
      failure = `That failed: ${error.message}`;
    }
    this.busy = false;
    this.show(failure);
  }

  async keep(kind, value, words) {
    const rivals = this.judged.map(({ controls }) => controls).filter((controls) => controls.kept.has("preferred"));
    if (kind === "preferred") for (const rival of rivals) await rival.change(() => rival.drop("preferred"));
    const response = await post("feedback", this.record(kind, value));
    this.kept.set(kind, { id: (await response.json()).id, value, words });
  }

  /** What is sent: what this side was asked, what each side answered, and one judgement. */
  record(kind, value) {
    const { temperature, seed, max_tokens } = this.turn.settings;
    return {
      messages: this.answer.messages,
      answers: this.judged.map(({ side, text }) => ({ model: side.model, content: text })),
      rating: null, preferred: null, correction: null,
      of: kind === "preferred" ? null : this.answer.side.model,
      [kind]: value,
      settings: { temperature, seed, max_tokens },
    };
  }

  async drop(kind) {
    const record = this.kept.get(kind);
    if (!record) return;
    await remove(`feedback/${encodeURIComponent(record.id)}`);
    this.kept.delete(kind);
  }

  async dropAll() {
    for (const kind of [...this.kept.keys()]) await this.drop(kind);
  }

  /** Show which judgements are kept, and the way to take them back. */
  show(failure) {
    for (const { made, kind, value } of this.toggles) {
      made.setAttribute("aria-pressed", String(this.kept.get(kind)?.value === value));
    }
    const words = [...this.kept.values()].map((record) => record.words).join(", ");
    const sentence = `${failure} ${words ? `Kept: ${words}.` : "Nothing is kept."}`.trim();
    const hadFocus = document.activeElement === this.takeBack;
    this.state.replaceChildren(element("span", { class: failure ? "error" : "" }, sentence), " ");
    if (this.kept.size) this.state.append(this.takeBack);
    this.state.hidden = false;
    if (hadFocus) (this.kept.size ? this.takeBack : this.toggles[0].made).focus();
    announce(`${this.answer.side.name}: ${sentence}`);
  }

  /** Open the field for a better answer, which begins as the last correction or as the answer itself. */
  openEditor() {
    if (this.editor) return this.closeEditor();
    const field = element("textarea", { rows: 5, required: true });
    field.value = this.kept.get("correction")?.value ?? this.answer.text;
    const cancel = element("button", { type: "button", onclick: () => this.closeEditor() }, "Cancel");
    this.editor = element(
      "form",
      { class: "editor", "aria-label": `Correction: ${this.answer.label}` },
      element("label", {}, "What it should have answered", field),
      element("div", { class: "actions" }, element("button", { type: "submit", class: "primary" }, "Keep"), cancel),
    );
    this.editor.addEventListener("submit", (event) => this.keepCorrection(event, field));
    this.editor.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation(); // it closes the field, and does not stop answers
      this.closeEditor();
    });
    this.state.before(this.editor);
    this.opener.setAttribute("aria-expanded", "true");
    field.focus();
    field.setSelectionRange(0, 0);
    field.scrollTop = 0;
  }

  keepCorrection(event, field) {
    event.preventDefault();
    const value = field.value.trim();
    if (!value) return;
    const shown = value.length > 60 ? `${value.slice(0, 60)}…` : value;
    this.change(async () => {
      await this.drop("correction");
      await this.keep("correction", value, `your correction “${shown}”`);
      this.closeEditor(); // only now: what was refused can be mended
    });
  }

  closeEditor() {
    this.editor?.remove();
    this.editor = null;
    this.opener.setAttribute("aria-expanded", "false");
    this.opener.focus();
  }
}
