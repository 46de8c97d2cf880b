"""Finds where a chat template puts the turns of a conversation, and which tokens stand around them.

It is given slots in place of what turns say; what it writes around them is the layout of all conversations with the
same roles. A template that changes or arranges turns by what they say has a layout for each conversation.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

from transformers import PreTrainedTokenizerBase

from finetuning.chat.abilities import WITH_PLACE
from finetuning.chat.layouts import Layout, Pattern, Piece, layout_of
from finetuning.chat.segments import Conversation, Segment, Written, rendering_of, texts_of, written
from finetuning.chat.template import Stops, texts
from finetuning.chat.template_analysis import only_writes_contents
from finetuning.chat.tokenization import PlainText, added_tokens
from finetuning.dataset.row_faults import RowDropped
from finetuning.dataset.turns import Message
from finetuning.tokens import QUESTION

# Stands for the text of a turn while the layout of a conversation is found; private use, in no text that is read.
SLOT = "\ue000turn {}\ue001"
SLOTS = re.compile("\ue000turn (\\d+)\ue001")
SPACED = f" {SLOT}\n"
MOST_RENDERED = 10_000
# The roles of a conversation, and which turns of it are learned.
Roles = tuple[tuple[str, ...], tuple[int, ...]]


class Layouts:
    """Finds the layouts that a chat template gives to conversations, and remembers them by the roles of the turns."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: Stops, plain: PlainText, learn_reasoning: bool = True
    ) -> None:
        self._tokenizer, self._stops, self._plain = tokenizer, stops, plain
        self._learn_reasoning = learn_reasoning
        added = tokenizer.added_tokens_decoder.values()
        self._takes_space = {token.content: (token.lstrip, token.rstrip) for token in added}
        self._only_writes = only_writes_contents(str(tokenizer.get_chat_template()))
        self._by_roles: dict[Roles, list[Layout] | RowDropped] = {}
        self._rendered: dict[tuple[tuple[str, ...], str, bool], str] = {}
        self._ids: dict[tuple[str, str], list[int]] = {}

    def of_roles(self, roles: tuple[str, ...], learned: tuple[int, ...]) -> list[Layout]:
        """Return the layouts of all conversations with these roles in this order, if the template only writes turns.

        There is one, and more where the template changes earlier turns when a turn is added.

        Args:
            learned: numbers of the turns whose answers are learned.

        Raises:
            RowDropped: the template does not take these roles.
        """
        layouts = self._by_roles.get((roles, learned))
        if layouts is None:
            try:
                layouts = self._of_slots(roles, learned)
            except RowDropped as reason:
                layouts = reason
            self._by_roles[roles, learned] = layouts
        if isinstance(layouts, RowDropped):
            raise layouts
        return layouts

    def _of_slots(self, roles: tuple[str, ...], learned: tuple[int, ...]) -> list[Layout]:
        slots, spaced = (
            [{"role": r, "content": form.format(i)} for i, r in enumerate(roles)] for form in (SLOT, SPACED)
        )
        found = []
        with_space = written(spaced, learned, partial(self._render, spaced, SPACED), self._stops)
        for text, other in zip(
            written(slots, learned, partial(self._render, slots, SLOT), self._stops), with_space, strict=False
        ):
            layout = self._layout_of(text, roles)
            strips = _strips(layout.pattern, text.turns, other.text) if text.turns == other.turns else None
            bare = (False,) * text.turns
            found.append(layout._replace(strips=strips or bare, is_known=self._only_writes and strips is not None))
        return found

    def _render(
        self, messages: list[Message], form: str, turns: int, as_prompt: bool, last: Message | None = None
    ) -> str:
        """Render turns with slots. What conversations have in common is rendered once, so that this is linear."""
        if last:
            return rendering_of(self._tokenizer, Conversation(messages))(turns, as_prompt, last)
        key = tuple([message["role"] for message in messages[:turns]]), form, as_prompt
        if key not in self._rendered:
            if len(self._rendered) > MOST_RENDERED:
                self._rendered.clear()
            self._rendered[key] = rendering_of(self._tokenizer, Conversation(messages))(turns, as_prompt)
        return self._rendered[key]

    def texts(self, conversation: Conversation, learned: tuple[int, ...]) -> list[Written]:
        """Return what the template makes of one conversation, divided.

        Raises:
            RowDropped: it refuses it.
        """
        render = rendering_of(self._tokenizer, conversation)
        return written(conversation.messages, learned, render, self._stops, self._learn_reasoning)

    def of_one(self, conversation: Conversation, texts: list[Written]) -> list[Layout]:
        """Return the layouts of one conversation, which the template changes or arranges by what it says.

        Raises:
            RowDropped: the template leaves something out, or nobody can tell its tokens from the text of a turn.
        """
        self._require_plain(conversation.tools, "tools")
        for i, message in enumerate(conversation.messages):
            self._require_plain(message, f"turn {i}")
        for text in texts:
            self._require_written(conversation._replace(messages=conversation.messages[: text.turns]), text.text)
        self._require_tools(conversation._replace(messages=conversation.messages[: texts[-1].turns]))
        asked = [m["content"].strip() for m in conversation.messages if m["role"] in ("user", "tool")]
        return [self._layout_of(text, None, [content for content in asked if content]) for text in texts]

    def _require_written(self, conversation: Conversation, text: str) -> None:
        """Raise an error unless the template writes what each turn says, in its own words or, of a tool, as JSON.

        Raises:
            RowDropped: it leaves some out.
        """
        messages, tools = conversation
        for i, message in enumerate(messages):
            content = message["content"].strip()
            if content in text or json.dumps(content, ensure_ascii=False)[1:-1] in text:
                continue
            if message["role"] == "tool":
                changed = [*messages[:i], message | {"content": "no result"}, *messages[i + 1 :]]
                before, after = texts_of(self._tokenizer, [conversation, Conversation(changed, tools)])
                if before != after:
                    continue
            raise _left_out(message["role"], i)

    def _require_plain(self, value: object, field: str) -> None:
        """Raise an error where a text in a value of JSON spells out a control token.

        Raises:
            RowDropped: one does; in what the template made of it, nobody can tell its own tokens from that text.
        """
        for text in _strings(value):
            if spelled_out := self._plain.spelled_out.search(text):
                raise RowDropped(f"spells out {spelled_out[0]} where the chat template changes the text", field)

    def _require_tools(self, conversation: Conversation) -> None:
        """Raise an error unless the template writes the tools and each call of one: without it the text would change.

        Raises:
            RowDropped: it leaves some out.
        """
        messages, tools = conversation
        if not tools and not any("tool_calls" in message for message in messages):
            return
        text = texts_of(self._tokenizer, [conversation])[0]
        if tools and texts_of(self._tokenizer, [Conversation(messages)])[0] == text:
            raise RowDropped(f"the chat template leaves out the tools ({WITH_PLACE})", "tools")
        for i, message in enumerate(messages):
            for without in _without_each_call(message):
                changed = Conversation([*messages[:i], without, *messages[i + 1 :]], tools)
                if texts_of(self._tokenizer, [changed])[0] == text:
                    raise RowDropped(f"the chat template leaves out the tool calls ({WITH_PLACE})", f"turn {i}")

    def _layout_of(self, found: Written, roles: tuple[str, ...] | None, asked: Sequence[str] = ()) -> Layout:
        """Return the layout with a slot for each role's turn, or with none where `roles` is None and `asked` said."""
        pieces = [piece for segment in found.segments for piece in self._pieces_of(segment, roles, asked)]
        layout = layout_of([self._placed(pieces, i, roles) for i in range(len(pieces))], self._plain.control_ids)
        turns = (roles or ())[: found.turns]
        missing = [(role, i) for i, role in enumerate(turns) if i not in layout.pattern.slots]
        if missing:
            raise _left_out(*missing[0])
        return layout._replace(turns=found.turns)

    def _pieces_of(self, segment: Segment, roles: tuple[str, ...] | None, asked: Sequence[str]) -> list[Piece]:
        pieces = []
        for text in self._plain.split(segment.text):
            kind = segment.kind
            if text in self._plain.control:
                pieces.append(Piece([self._plain.control[text]], _pattern(text, None), kind))
                continue
            margins = _margins(text, roles, asked) if segment.is_prompt else None
            pieces.append(Piece(None, _pattern(text, roles), QUESTION if margins else kind, margins=margins))
        return pieces

    def _placed(self, pieces: list[Piece], i: int, roles: tuple[str, ...] | None) -> Piece:
        """Return piece `i` with what it needs of its neighbours and, if it has no slots, with its tokens."""
        piece = pieces[i]
        if piece.ids is not None:
            return piece
        before, after = (pieces[j].text([]) if 0 <= j < len(pieces) and pieces[j].ids else "\n" for j in (i - 1, i + 1))
        if i == 0:
            before = ""
        strip = self._takes_space.get(before, (False, False))[1], self._takes_space.get(after, (False, False))[0]
        piece = piece._replace(before=before, strip=strip)
        if piece.pattern.slots:
            return piece
        key = piece.text([]), before
        if roles is None:
            return piece._replace(ids=self._plain.token_ids([key[0]], [before])[0])
        if key not in self._ids:
            self._ids[key] = self._plain.token_ids([key[0]], [before])[0]
        return piece._replace(ids=self._ids[key])


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return text and id of the special tokens, and of others that the template itself writes around turns."""
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "an answer"}]
    text = texts(tokenizer, [turns])[0] + texts(tokenizer, [turns[:1]], add_generation_prompt=True)[0]
    written = {token for token in added_tokens(tokenizer) if token.strip() and token in text}
    added = tokenizer.added_tokens_decoder.items()
    return {t.content: i for i, t in added if len(t.content) > 1 and (t.special or t.content in written)}


def _turns(roles: tuple[str, ...], form: str) -> list[Message]:
    return [{"role": role, "content": form.format(i)} for i, role in enumerate(roles)]


def _pattern(text: str, roles: tuple[str, ...] | None) -> Pattern:
    """Return the text with a place for each slot; without roles, a text has no slots."""
    if roles is None:
        return Pattern(text.replace("%", "%%"))
    return Pattern(SLOTS.sub("%s", text.replace("%", "%%")), tuple(int(slot) for slot in SLOTS.findall(text)))


def _margins(text: str, roles: tuple[str, ...] | None, asked: Sequence[str]) -> tuple[Pattern, Pattern] | None:
    """Return what stands before and after the turns of user and tools in a text; None where there is no such turn."""
    if roles is None:
        spans = [(text.index(content), text.rindex(content) + len(content)) for content in asked if content in text]
    else:
        spans = [slot.span() for slot in SLOTS.finditer(text) if roles[int(slot[1])] in ("user", "tool")]
    if not spans:
        return None
    return _pattern(text[: min(spans)[0]], roles), _pattern(text[max(end for _, end in spans) :], roles)


def _without_each_call(message: Message) -> Iterator[Message]:
    """Yield the message without each of its calls of tools."""
    calls = message.get("tool_calls") or []
    for i in range(len(calls)):
        others = [*calls[:i], *calls[i + 1 :]]
        yield {key: value for key, value in message.items() if key != "tool_calls"} | (
            {"tool_calls": others} if others else {}
        )


def _strips(pattern: Pattern, turns: int, spaced: str) -> tuple[bool, ...] | None:
    """Whether the template takes white space off each turn; None if it does something else to one.

    Args:
        spaced: what it makes of the turns with white space around each of them.
    """
    strips: dict[int, bool] = {}
    rest = spaced
    between = (pattern.text % (("\ue002",) * len(pattern.slots))).split("\ue002")
    for before, turn in zip(between, pattern.slots, strict=False):
        if not rest.startswith(before):
            return None
        rest = rest.removeprefix(before)
        found = next((form for form in (SPACED, SLOT) if rest.startswith(form.format(turn))), None)
        if found is None or strips.setdefault(turn, found is SLOT) is not (found is SLOT):
            return None
        rest = rest.removeprefix(found.format(turn))
    return tuple([strips.get(turn, False) for turn in range(turns)]) if rest == between[-1] else None


def _strings(value: object) -> Iterator[str]:
    """Yield all texts in a value of JSON, keys as well."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(map(_strings, chain(value.keys(), value.values())))
    elif isinstance(value, list):
        yield from chain.from_iterable(map(_strings, value))


def _left_out(role: str, turn: int) -> RowDropped:
    return RowDropped(f"the chat template leaves out or changes the {role} turn", f"turn {turn}")
