"""Finds where a chat template puts the turns of a conversation, and which tokens stand around them.

It is given slots in place of what turns say; what it writes around them is the layout of all conversations with the
same roles. A template that changes or arranges turns by what they say has a layout for each conversation.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from transformers import PreTrainedTokenizerBase

from finetuning.chat.layouts import Layout, Pattern, Piece, layout_of
from finetuning.chat.segments import Conversation, Segment, segments, texts_of
from finetuning.chat.template import texts
from finetuning.chat.template_analysis import only_writes_contents
from finetuning.chat.tokenization import PlainText, added_tokens
from finetuning.dataset.formats import Message, RowDropped
from finetuning.errors import FinetuningError
from finetuning.tokens import ANSWER, OTHER, QUESTION

# Stands for the text of a turn while the layout of a conversation is found; private use, in no text that is read.
SLOT = "\ue000turn {}\ue001"
SLOTS = re.compile("\ue000turn (\\d+)\ue001")


class Layouts:
    """Finds the layouts that a chat template gives to conversations, and remembers them by the roles of the turns."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: str, plain: PlainText) -> None:
        self._tokenizer, self._stop, self._plain = tokenizer, stop, plain
        added = tokenizer.added_tokens_decoder.values()
        self._takes_space = {token.content: (token.lstrip, token.rstrip) for token in added}
        self._only_writes = only_writes_contents(str(tokenizer.get_chat_template()))
        self._by_roles: dict[tuple[str, ...], Layout | RowDropped] = {}

    def of_roles(self, roles: tuple[str, ...]) -> Layout:
        """Return the layout of all conversations with these roles in this order, if the template only writes turns.

        Raises:
            RowDropped: the template does not take these roles.
        """
        layout = self._by_roles.get(roles)
        if layout is None:
            messages = [{"role": role, "content": SLOT.format(i)} for i, role in enumerate(roles)]
            try:
                layout = self._layout_of(segments(self._tokenizer, Conversation(messages), self._stop), roles)
                strips = [self._strips(layout, messages, turn) for turn in range(len(roles))]
                known = self._only_writes and None not in strips
                layout = layout._replace(strips=tuple(map(bool, strips)), is_known=known)
            except RowDropped as reason:
                layout = reason
            self._by_roles[roles] = layout
        if isinstance(layout, RowDropped):
            raise layout
        return layout

    def of_one(self, conversation: Conversation, text: str) -> Layout:
        """Return the layout of one conversation, whose `text` the template changes or arranges by what it says.

        Raises:
            RowDropped: the template leaves something out, or nobody can tell its tokens from the text of a turn.
        """
        self._require_plain(conversation.tools, "tools")
        for i, message in enumerate(conversation.messages):
            self._require_plain(message, f"turn {i}")
            if message["content"].strip() not in text:
                raise _left_out(message["role"], i)
        self._require_tools(conversation, text)
        try:
            found = segments(self._tokenizer, conversation, self._stop)
            asked = [m["content"].strip() for m in conversation.messages if m["role"] in ("user", "tool")]
            return self._layout_of(found, None, [content for content in asked if content])
        except FinetuningError as error:
            raise RowDropped("the chat template changes earlier turns when a turn is added") from error

    def _strips(self, layout: Layout, messages: list[Message], turn: int) -> bool | None:
        """Whether the template takes white space off that turn; None if it does something else to it."""
        bare = [message["content"] for message in messages]
        spaced = [*bare[:turn], f" {bare[turn]}\n", *bare[turn + 1 :]]
        asked = [message | {"content": content} for message, content in zip(messages, spaced, strict=True)]
        text = texts(self._tokenizer, [asked])[0]
        return {layout.pattern.fill(spaced): False, layout.pattern.fill(bare): True}.get(text)

    def _require_plain(self, value: object, field: str) -> None:
        """Raise an error where a text in a value of JSON spells out a control token.

        Raises:
            RowDropped: one does; in what the template made of it, nobody can tell its own tokens from that text.
        """
        for text in _strings(value):
            if spelled_out := self._plain.spelled_out.search(text):
                raise RowDropped(f"spells out {spelled_out[0]} where the chat template changes the text", field)

    def _require_tools(self, conversation: Conversation, text: str) -> None:
        """Raise an error unless the template writes the tools and each call of one: without it the text would change.

        Raises:
            RowDropped: it leaves some out.
        """
        messages, tools = conversation
        if tools and texts_of(self._tokenizer, [Conversation(messages)])[0] == text:
            raise RowDropped("the chat template leaves out the tools", "tools")
        for i, message in enumerate(messages):
            if "tool_calls" in message:
                without = {key: value for key, value in message.items() if key != "tool_calls"}
                changed = Conversation([*messages[:i], without, *messages[i + 1 :]], tools)
                if texts_of(self._tokenizer, [changed])[0] == text:
                    raise RowDropped("the chat template leaves out the tool calls", f"turn {i}")

    def _layout_of(self, found: list[Segment], roles: tuple[str, ...] | None, asked: Sequence[str] = ()) -> Layout:
        """Return the layout with a slot for each role's turn, or with none where `roles` is None and `asked` said."""
        pieces = [piece for segment in found for piece in self._pieces_of(segment, roles, asked)]
        layout = layout_of([self._placed(pieces, i) for i in range(len(pieces))], self._plain.control_ids)
        missing = [(role, i) for i, role in enumerate(roles or ()) if i not in layout.pattern.slots]
        if missing:
            raise _left_out(*missing[0])
        return layout

    def _pieces_of(self, segment: Segment, roles: tuple[str, ...] | None, asked: Sequence[str]) -> list[Piece]:
        pieces = []
        for text in self._plain.split(segment.text):
            kind = ANSWER if segment.supervised else OTHER
            if text in self._plain.control:
                pieces.append(Piece([self._plain.control[text]], _pattern(text, None), kind))
                continue
            margins = None if segment.supervised else _margins(text, roles, asked)
            pieces.append(Piece(None, _pattern(text, roles), QUESTION if margins else kind, margins=margins))
        return pieces

    def _placed(self, pieces: list[Piece], i: int) -> Piece:
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
        return piece._replace(ids=self._plain.token_ids([piece.text([])], [before])[0])


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return text and id of the special tokens, and of others that the template itself writes around turns."""
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "an answer"}]
    text = texts(tokenizer, [turns])[0] + texts(tokenizer, [turns[:1]], add_generation_prompt=True)[0]
    written = {token for token in added_tokens(tokenizer) if token.strip() and token in text}
    added = tokenizer.added_tokens_decoder.items()
    return {t.content: i for i, t in added if len(t.content) > 1 and (t.special or t.content in written)}


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
