"""A conversation at the terminal: answers appear as they are written, as Markdown where the terminal shows it.

Lines that begin with / are commands; all others are asked.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from finetuning.assistant.assistant import Asking, Assistant
from finetuning.assistant.replies import Delta, Said
from finetuning.chat.segments import Conversation
from finetuning.dataset.turns import Message
from finetuning.errors import FinetuningError
from finetuning.knowledge.context import citations_in
from finetuning.knowledge.passages import Passage

# All but line break and tab: a terminal obeys them, whoever wrote them.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
HALVES = re.compile(r"[\ud800-\udfff]")  # what a terminal makes of bytes that are no text
HELP = """\
/tuned, /base, /both   who answers
/system TEXT           the system message from now on; without TEXT, none
/new                   begin anew
/passages              what the last question was asked with, where there are documents
/save FILE             write the conversation to FILE, as a row of messages in JSON
/help, /quit           this list; the end (Ctrl-D too)"""


@dataclass
class Heard:
    """What is told of an answer, in the order in which it was told."""

    told: SimpleQueue[Delta | tuple[Said, str | Exception]] = field(default_factory=SimpleQueue)

    def news(self, delta: Delta) -> None:
        self.told.put(delta)

    def end(self, said: Said, reason: str | Exception) -> None:
        self.told.put((said, reason))


class Chat:
    """What was said so far, to each side by itself, and the commands."""

    def __init__(self, assistant: Assistant, console: Console, how: Asking, side: str = "tuned") -> None:
        self.assistant, self.console, self.how = assistant, console, how
        self.system = assistant.system
        self.passages: tuple[Passage, ...] = ()
        self.sides = self._sides(side)
        self.history: dict[str, list[Message]] = {name: [] for name in assistant.names}

    def run(self, read: Callable[[], str]) -> None:
        """Answer each line that `read` returns, until it raises EOFError."""
        about = printable(f"{self.assistant.source.source} · {self.assistant.source.verdict}")
        self.console.print(about, style="dim", markup=False)
        self.console.print("/help lists the commands", style="dim")
        while True:
            try:
                line = read().strip()
            except (EOFError, KeyboardInterrupt):
                return
            if line in ("/quit", "/exit"):
                return
            try:
                if HALVES.search(line):
                    raise FinetuningError("that has half of a character in it; type it anew")
                self.obey(line) if line.startswith("/") else line and self.ask(line)
            except Exception as error:  # whatever it is, it is no reason to lose what was said
                known = isinstance(error, (FinetuningError, OSError))
                told = str(error) if known else f"{type(error).__name__}: {error}"
                self.console.print(printable(told), style="red", markup=False, soft_wrap=True)

    def obey(self, line: str) -> None:
        """Carry out a command.

        Raises:
            FinetuningError: there is no such command, or no such side.
        """
        command, _, rest = line.partition(" ")
        match command:
            case "/tuned" | "/base" | "/both":
                self.sides = self._sides(command[1:])
                self.console.print(f"{' and '.join(self.sides)} answers from now on", style="dim")
            case "/system":
                self.system = rest.strip()
                self.console.print("system message set" if self.system else "no system message", style="dim")
            case "/new":
                self.history = {name: [] for name in self.assistant.names}
            case "/save":
                self.save(rest.strip())
            case "/passages":
                for number, one in enumerate(self.passages, 1):
                    self.console.print(printable(f"[{number}] {one.document}\n{one.shown}\n"), markup=False)
            case "/help":
                self.console.print(HELP, markup=False)
            case _:
                raise FinetuningError(f"{command} is no command; /help lists them")

    def ask(self, question: str) -> None:
        """Have each side that is on answer, one after the other."""
        for name in self.sides:
            if len(self.assistant.names) > 1:
                self.console.print(name, style="bold")
            messages = [*self.history[name], {"role": "user", "content": question}]
            system = [{"role": "system", "content": self.system}] if self.system else []
            said = self._shown(name, [*system, *messages])
            answer: Message = {"role": "assistant", "content": said.content}
            if said.reasoning and self.assistant.renderer.abilities.reasoning:
                answer["reasoning_content"] = said.reasoning
            self.history[name] = [*messages, answer]

    def save(self, file: str) -> None:
        """Write what was said, a line of JSON for each side, as a source of the format messages has it.

        Raises:
            FinetuningError: no file is named, none can have that name, or one of that name is there.
        """
        if not file:
            raise FinetuningError("/save: name a file, such as /save talk.jsonl")
        system = [{"role": "system", "content": self.system}] if self.system else []
        rows = [{"messages": [*system, *said], "model": name} for name, said in self.history.items() if said]
        try:
            with Path(file).expanduser().open("x", encoding="utf-8") as out:
                out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        except FileExistsError:
            raise FinetuningError(f"/save: {file} is there already; name another file") from None
        except (RuntimeError, ValueError) as error:  # a home of nobody, a null in the name
            raise FinetuningError(f"/save: {file!r} is no file's name: {error}") from None
        told = f"{len(rows)} conversation(s) written to {printable(file)}"
        self.console.print(told, style="dim", markup=False, soft_wrap=True)

    def _sides(self, chosen: str) -> list[str]:
        if chosen != "tuned" and self.assistant.base is None:
            raise FinetuningError(
                f"{self.assistant.source.source} has no base beside it: it is merged into its weights"
            )
        both = [name for name in (self.assistant.tuned, self.assistant.base) if name]
        return {"tuned": both[:1], "base": both[1:], "both": both}[chosen]

    def _shown(self, name: str, messages: list[Message]) -> Said:
        """Show an answer while it comes, and return it; Ctrl-C ends it where it is.

        Raises:
            FinetuningError: it failed.
        """
        heard = Heard()
        row, prompt = self.assistant.ask(name, Conversation(messages), self.how, heard)
        if prompt.left_out_turns:
            note = f"{prompt.left_out_turns} oldest turn(s) left out: the conversation is longer than the model reads"
            self.console.print(note, style="dim")
        try:
            said, reason = self._followed(heard)
        except KeyboardInterrupt:
            row.left.set()
            said, reason = next(told for told in iter(heard.told.get, None) if not isinstance(told, Delta))
        if isinstance(reason, FinetuningError):
            raise reason
        for number in citations_in(said.content, len(prompt.passages)):
            cited = prompt.passages[number - 1]
            place = " › ".join(filter(None, (cited.document, cited.heading)))
            self.console.print(printable(f"[{number}] {place}"), style="dim", markup=False, highlight=False)
        self.passages = prompt.passages
        if isinstance(reason, Exception):
            raise FinetuningError(f"the answer failed: {type(reason).__name__}: {reason}") from reason
        if reason != "stop":
            why = f"ended at {said.tokens} tokens" if reason == "length" else "stopped"
            self.console.print(why, style="dim")
        return said

    def _followed(self, heard: Heard) -> tuple[Said, str | Exception]:
        """Show what is told until the end of the answer."""
        text = thought = ""
        if not self.console.is_terminal:
            for told in self._until_end(heard):
                if isinstance(told, Delta):
                    self.console.out(printable(told.content), end="", highlight=False)
                else:
                    self.console.out("")
                    return told
        with Live(console=self.console, auto_refresh=False, vertical_overflow="visible") as live:
            for told in self._until_end(heard):
                if not isinstance(told, Delta):
                    return told
                text, thought = text + printable(told.content), thought + printable(told.reasoning)
                live.update(Markdown(text) if text else Text(thought, style="dim italic"), refresh=True)
        raise AssertionError("an answer always ends")

    def _until_end(self, heard: Heard) -> Iterator[Delta | tuple[Said, str | Exception]]:
        while True:
            told = heard.told.get()
            yield told
            if not isinstance(told, Delta):
                return


def printable(text: str) -> str:
    """Return the text with a mark in place of each character that a terminal would obey."""
    return CONTROLS.sub("\ufffd", text)
