"""Makes text of the tokens of an answer while they come, so that all of it is what the exam would have read."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from finetuning.evaluation.generation import answer_of

# How models write a call of a tool: Hermes and Qwen, Mistral before and after its third tokenizer, and Llama 3.
TAGGED = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)
MISTRAL = re.compile(r"\[TOOL_CALLS\]\s*(\[.*\])", re.DOTALL)
MISTRAL_NAMED = re.compile(r"\[TOOL_CALLS\]\s*([\w.-]+)\s*\[ARGS\]\s*(\{.*?\})(?=\[TOOL_CALLS\]|$)", re.DOTALL)
LLAMA = re.compile(r"\s*(?:<\|python_tag\|>)?\s*(\{.*\})\s*", re.DOTALL)
THOUGHT = re.compile(r"\s*<(think|thinking|thought|reasoning)>\s*")
UNFINISHED = "\ufffd"  # a character of which more bytes are to come


class Delta(NamedTuple):
    """What is new of an answer: of its text, or of what the model thinks before it."""

    content: str = ""
    reasoning: str = ""


class Call(NamedTuple):
    """A call of a tool: its name, and its arguments as JSON."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Said:
    """A whole answer."""

    content: str
    reasoning: str
    calls: list[Call]
    tokens: int
    """With the stop token, where it came."""


@dataclass
class Reply:
    """An answer on its way.

    Attributes:
        stop: the token that ends it.
        mark: what the model writes before the answer itself, after thinking (`before_answer`).
        opened: whether the prompt opened a thought.
        stop_strings: texts that end it too, and are no part of it.
        tools: whether tools were offered. Then nothing is told before the end: a call is no text for people.
    """

    tokenizer: PreTrainedTokenizerBase
    stop: int
    mark: str = ""
    opened: bool = False
    stop_strings: tuple[str, ...] = ()
    tools: bool = False
    ids: list[int] = field(default_factory=list)
    told: Delta = field(default_factory=Delta)

    def put(self, token: int) -> Delta:
        """Return what the token adds that can be told already."""
        self.ids.append(token)
        return self._news(self._split(), final=False)

    @property
    def is_complete(self) -> bool:
        """Whether one of the stop strings has been written."""
        return any(text in self._split().content for text in self.stop_strings)

    def end(self) -> Delta:
        """Return what was held back; the answer has ended."""
        said = self.whole()
        return self._news(Delta(said.content, said.reasoning), final=True)

    def whole(self, stopped: bool = False) -> Said:
        """Return all of the answer as it stands."""
        content, reasoning = self._split()
        calls: list[Call] = []
        if self.tools:
            raw = str(self.tokenizer.decode(self.ids, skip_special_tokens=False))
            calls = list(calls_in(raw.rpartition(self.mark)[2] if self.mark else raw))
        content = before_any(content, self.stop_strings)
        if calls:
            content = TAGGED.sub("", content).strip() if TAGGED.search(content) else ""
        return Said(content, reasoning, calls, len(self.ids) + stopped)

    def _split(self) -> Delta:
        """The answer so far, and what was thought before it."""
        answer = answer_of(self.tokenizer, self.ids, self.stop, self.mark).text
        if not self.mark.startswith("</"):
            return Delta(answer)
        raw = str(self.tokenizer.decode(self.ids, skip_special_tokens=False))
        thought, mark, _ = raw.rpartition(self.mark)
        begun = THOUGHT.match(raw)
        if not mark:
            thinks = self.opened or begun
            return Delta(reasoning=raw[begun.end() if begun else 0 :]) if thinks else Delta(answer)
        return Delta(answer, thought[begun.end() if begun else 0 :].strip())

    def _news(self, now: Delta, final: bool) -> Delta:
        """What of `now` was not told yet and can be, and note that it was."""
        content, reasoning = now
        if not final:
            # A mark that is no closing tag comes more than once, and the answer is what follows the last one.
            held = self.tools or (self.mark and not self.mark.startswith("</"))
            content = "" if held else self._settled(content)
            reasoning = self._settled(reasoning)
        content, reasoning = (
            text if text.startswith(before) and text else before
            for text, before in zip((content, reasoning), self.told, strict=True)
        )
        news = Delta(content[len(self.told.content) :], reasoning[len(self.told.reasoning) :])
        self.told = Delta(content, reasoning)
        return news

    def _settled(self, text: str) -> str:
        """The text up to where more tokens may yet change it, or make it a stop string or the mark."""
        text = before_any(text, self.stop_strings).rstrip(UNFINISHED)
        ends = (*self.stop_strings, *([self.mark] if self.mark else ()))
        held = max((beginning(text, end) for end in ends), default=0)
        return text[: len(text) - held]


def before_any(text: str, ends: tuple[str, ...]) -> str:
    """Return the text before the first of the `ends` in it."""
    places = [text.index(end) for end in ends if end in text]
    return text[: min(places)] if places else text


def beginning(text: str, end: str) -> int:
    """Return how many of the last characters of `text` may be the beginning of `end`."""
    return next((length for length in range(min(len(text), len(end)), 0, -1) if text.endswith(end[:length])), 0)


def calls_in(raw: str) -> Iterator[Call]:
    """Yield the calls of tools in an answer with all of its special tokens.

    >>> list(calls_in('<tool_call>{"name": "add", "arguments": {"a": 2}}</tool_call>'))
    [Call(name='add', arguments='{"a": 2}')]
    """
    named = MISTRAL_NAMED.findall(raw)
    texts = TAGGED.findall(raw) or MISTRAL.findall(raw)
    if named:
        found: list[Any] = [{"name": name, "arguments": _json(arguments)} for name, arguments in named]
    elif texts:
        found = [_json(text) for text in texts]
    else:
        whole = LLAMA.match(re.sub(r"<\|[\w]+\|>\s*$", "", raw))
        found = [_json(whole[1])] if whole else []
    for value in found:
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, dict) or not isinstance(one.get("name"), str):
                continue
            arguments = one.get("arguments", one.get("parameters"))
            if isinstance(arguments, dict):
                yield Call(one["name"], json.dumps(arguments, ensure_ascii=False))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
