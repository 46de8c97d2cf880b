"""Renders conversations by a chat template and tokenizes them piece by piece, so that each piece's tokens are known.

<|im_start|>user\\n2 + 3?<|im_end|>\\n<|im_start|>assistant\\n5<|im_end|>\\n
-> the control tokens by their ids, "user\\n2 + 3?", "\\n", "assistant\\n" and "5" each tokenized by itself

No token then lies across the end of a prompt: what the model is given to answer is exactly what preceded the answer in
training. And no text of a conversation becomes a control token, whatever it spells out.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetuning.chat.layouts import LaidOut, Layout, Pattern, Piece, joined, layout_of
from finetuning.chat.template import stop_text, texts
from finetuning.chat.template_analysis import only_writes_contents
from finetuning.chat.tokenization import PlainText, added_tokens, token_ids
from finetuning.dataset.formats import Message, RowDropped
from finetuning.errors import FinetuningError
from finetuning.tokens import ANSWER, OTHER, QUESTION, Tokens

# Stands for the text of a turn while the layout of a conversation is found; private use, in no text that is read.
SLOT = "\ue000turn {}\ue001"
SLOTS = re.compile("\ue000turn (\\d+)\ue001")
MOST_SYSTEM_PROMPTS = 1_000
# So many conversations with the same roles are rendered and compared before a template is relied on.
COMPARED = 100
# A piece on its way to become tokens: its place among all parts, the piece, and its text.
Text = tuple[int, Piece, str]


class Conversation(NamedTuple):
    """The turns of a conversation, and the tools that are offered in it."""

    messages: list[Message]
    tools: list[Any] | None = None


class Segment(NamedTuple):
    """A piece of a rendered conversation: a prompt, an answer with its stop token, or what follows the last one."""

    text: str
    supervised: bool


class Rendered(NamedTuple):
    """A conversation as the model sees it: token ids, and as labels the same ids or -100 where nothing is learned."""

    input_ids: list[int]
    labels: list[int]


class Renderer:
    """Renders by the chat template of a tokenizer, and remembers what it found out about that template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.stop = tokenizer, stop_text(tokenizer)
        added = [(token, number) for number, token in tokenizer.added_tokens_decoder.items()]
        written = _written_by_template(tokenizer)
        control = {t.content: i for t, i in added if len(t.content) > 1 and (t.special or t.content in written)}
        self.plain = PlainText(tokenizer, control)
        self._takes_space = {token.content: (token.lstrip, token.rstrip) for token, _ in added}
        self._only_writes = only_writes_contents(str(tokenizer.get_chat_template()))
        self._compared: dict[tuple[str, ...], int] = {}
        self._layouts: dict[tuple[str, ...], Layout | RowDropped] = {}
        self._system_prompts: dict[tuple[str, str], list[int]] = {}
        self._lengths: dict[str, int] = {}

    def lay_out(self, conversations: Sequence[Conversation]) -> list[LaidOut | RowDropped]:
        """The pieces of each conversation, or why the template does not take it.

        Their texts together are exactly what the template makes of that conversation: each is rendered and compared,
        but for a template that only writes what turns say, where the first ones with the same roles are.

        Raises:
            FinetuningError: the template changes what went before when a turn is added.
        """
        unsure = [i for i, conversation in enumerate(conversations) if not self._is_sure(conversation)]
        rendered = dict(zip(unsure, self._texts([conversations[i] for i in unsure]), strict=True))
        found: list[LaidOut | RowDropped] = []
        for i, conversation in enumerate(conversations):
            try:
                found.append(self._pieces(conversation, rendered.get(i)))
            except RowDropped as reason:
                found.append(reason)
        return found

    def prompt(self, conversation: Conversation) -> list[int]:
        """The token ids that an answer to the conversation follows: the very ones that precede it in training.

        Raises:
            RowDropped: the template does not take these messages.
        """
        answered = [*conversation.messages, {"role": "assistant", "content": "an answer"}]
        (found,) = self.lay_out([Conversation(answered, conversation.tools)])
        if isinstance(found, RowDropped):
            raise found
        pieces = found.layout.pieces
        answer = max(i for i, piece in enumerate(pieces) if piece.kind == ANSWER)
        while answer and pieces[answer - 1].kind == ANSWER:
            answer -= 1
        return self.tokenize([LaidOut(layout_of(pieces[:answer], self.plain.control_ids), found.contents)]).ids.tolist()

    def tokenize(self, conversations: Sequence[LaidOut]) -> Tokens:
        """The tokens of conversations that are laid out."""
        parts: list[list[int]] = []
        kinds: list[int] = []
        ends: list[int] = []
        found: list[Text] = []
        for layout, contents in conversations:
            found += [(len(parts) + offset, piece, piece.text(contents)) for offset, piece in layout.texts]
            parts += layout.parts
            kinds += layout.kinds
            ends.append(len(parts))
        self._fill(parts, found)
        tokens = joined(parts, kinds, ends)
        controls = sum([layout.controls for layout, _ in conversations])
        if np.count_nonzero(self.plain.is_control[tokens.ids]) > controls:
            spelled_out = [text for text in found if not self.plain.control_ids.isdisjoint(parts[text[0]])]
            for place, piece, text in spelled_out:
                parts[place] = self.plain.apart(text, piece.before)
            tokens = joined(parts, kinds, ends)
            tokens.spelled_out = sorted({bisect_right(ends, place) for place, _, _ in spelled_out})
        self._take_off_margins(tokens, parts, conversations)
        return tokens

    def _fill(self, parts: list[list[int]], found: list[Text]) -> None:
        """Nothing; `parts` then has the tokens of the texts. System prompts, which many rows share, are remembered."""
        if len(self._system_prompts) > MOST_SYSTEM_PROMPTS:
            self._system_prompts = {}
        known = self._system_prompts
        new = [text for text in found if text[1].kind != OTHER or (text[2], text[1].before) not in known]
        ids = self.plain.token_ids([text for _, _, text in new], [piece.before for _, piece, _ in new])
        for (place, piece, text), tokens in zip(new, ids, strict=True):
            parts[place] = tokens
            if piece.kind == OTHER:
                known[text, piece.before] = tokens
        for place, piece, text in found:
            if piece.kind == OTHER:
                parts[place] = known[text, piece.before]

    def _take_off_margins(self, tokens: Tokens, parts: list[list[int]], conversations: Sequence[LaidOut]) -> None:
        """Nothing; of a question's tokens only those of the user's own words are then of kind QUESTION."""
        margins, start = [], 0
        for layout, contents in conversations:
            for offset, head, tail in layout.margins:
                margins.append((start + offset, self._length(head, contents), self._length(tail, contents)))
            start += len(layout.parts)
        if not margins:
            return
        places, heads, tails = np.array(margins, np.int64).T
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        ends = np.cumsum(lengths)[places]
        starts = ends - lengths[places]
        edges = np.zeros(len(tokens.ids) + 1, np.int32)
        np.add.at(edges, starts, 1)
        np.add.at(edges, np.minimum(starts + heads, ends), -1)
        np.add.at(edges, np.maximum(ends - tails, starts), 1)
        np.add.at(edges, ends, -1)
        tokens.kinds[np.cumsum(edges[:-1]) > 0] = OTHER

    def _length(self, pattern: Pattern, contents: list[str]) -> int:
        """How many tokens a text has by itself. Texts around the user's own words are few, and remembered."""
        text = pattern.fill(contents) if pattern.slots else pattern.text
        length = self._lengths.get(text)
        if length is None:
            if len(self._lengths) > MOST_SYSTEM_PROMPTS:
                self._lengths = {}
            length = self._lengths[text] = len(token_ids(self.tokenizer, [pattern.fill(contents)])[0])
        return length

    def _texts(self, conversations: Sequence[Conversation]) -> list[str | RowDropped]:
        if len(conversations) > 1 and not any(conversation.tools for conversation in conversations):
            try:
                return list(texts(self.tokenizer, [conversation.messages for conversation in conversations]))
            except RowDropped:
                pass  # one by one, each of them tells whether it was the one
        found: list[str | RowDropped] = []
        for messages, tools in conversations:
            try:
                found += texts(self.tokenizer, [messages], tools=tools)
            except RowDropped as reason:
                found.append(reason)
        return found

    def _is_sure(self, conversation: Conversation) -> bool:
        """Whether the layout of the conversation's roles is known to be what the template makes of it."""
        return _is_plain(conversation) and self._compared.get(_roles(conversation), 0) >= COMPARED

    def _pieces(self, conversation: Conversation, text: str | RowDropped | None) -> LaidOut:
        """The pieces of a conversation of which the template made `text`, or would surely make what the layout says."""
        if isinstance(text, RowDropped):
            raise text
        # Whatever has more than a role and a content, the template may arrange by what is in it.
        if not _is_plain(conversation):
            return LaidOut(self._own_layout(conversation, str(text)), [])
        roles = _roles(conversation)
        layout = self._layout(roles)
        contents = [message["content"] for message in conversation.messages]
        if any(layout.strips):
            contents = [c.strip() if strip else c for c, strip in zip(contents, layout.strips, strict=True)]
        if text is None:
            return LaidOut(layout, contents)
        if layout.pattern.fill(contents) == text:
            self._compared[roles] = self._compared.get(roles, 0) + layout.is_known
            return LaidOut(layout, contents)
        return LaidOut(self._own_layout(conversation, text), [])

    def _layout(self, roles: tuple[str, ...]) -> Layout:
        """The layout of all conversations with these roles in this order, if the template only writes their turns."""
        layout = self._layouts.get(roles)
        if layout is None:
            messages = [{"role": role, "content": SLOT.format(i)} for i, role in enumerate(roles)]
            try:
                layout = self._layout_of(segments(self.tokenizer, Conversation(messages), self.stop), roles)
                strips = [self._strips(layout, messages, turn) for turn in range(len(roles))]
                known = self._only_writes and None not in strips
                layout = layout._replace(strips=tuple(map(bool, strips)), is_known=known)
            except RowDropped as reason:
                layout = reason
            self._layouts[roles] = layout
        if isinstance(layout, RowDropped):
            raise layout
        return layout

    def _strips(self, layout: Layout, messages: list[Message], turn: int) -> bool | None:
        """Whether the template takes white space off that turn; None if it does something else to it."""
        bare = [message["content"] for message in messages]
        spaced = [*bare[:turn], f" {bare[turn]}\n", *bare[turn + 1 :]]
        asked = [message | {"content": content} for message, content in zip(messages, spaced, strict=True)]
        text = texts(self.tokenizer, [asked])[0]
        return {layout.pattern.fill(spaced): False, layout.pattern.fill(bare): True}.get(text)

    def _own_layout(self, conversation: Conversation, text: str) -> Layout:
        """The layout of one conversation whose text the template changes or arranges by what it says."""
        self._require_plain(conversation.tools, "tools")
        for i, message in enumerate(conversation.messages):
            self._require_plain(message, f"turn {i}")
            if message["content"].strip() not in text:
                raise _left_out(message["role"], i)
        self._require_tools(conversation, text)
        try:
            found = segments(self.tokenizer, conversation, self.stop)
            asked = [m["content"].strip() for m in conversation.messages if m["role"] in ("user", "tool")]
            return self._layout_of(found, None, [content for content in asked if content])
        except FinetuningError as error:
            raise RowDropped("the chat template changes earlier turns when a turn is added") from error

    def _require_plain(self, value: Any, field: str) -> None:
        """Nothing, when none of the texts in a value of JSON spells out a control token.

        Raises:
            RowDropped: one does; in what the template made of it, nobody can tell its own tokens from that text.
        """
        for text in _strings(value):
            if spelled_out := self.plain.spelled_out.search(text):
                raise RowDropped(f"spells out {spelled_out[0]} where the chat template changes the text", field)

    def _require_tools(self, conversation: Conversation, text: str) -> None:
        """Nothing, when the template writes the tools, and each call of one: without it the text would be another.

        Raises:
            RowDropped: it leaves some out.
        """
        messages, tools = conversation
        if tools and self._texts([Conversation(messages)])[0] == text:
            raise RowDropped("the chat template leaves out the tools", "tools")
        for i, message in enumerate(messages):
            if "tool_calls" in message:
                without = {key: value for key, value in message.items() if key != "tool_calls"}
                if self._texts([Conversation([*messages[:i], without, *messages[i + 1 :]], tools)])[0] == text:
                    raise RowDropped("the chat template leaves out the tool calls", f"turn {i}")

    def _layout_of(self, found: list[Segment], roles: tuple[str, ...] | None, asked: Sequence[str] = ()) -> Layout:
        """The layout with a slot for the turn of each role, or with none where `roles` is None and `asked` is said."""
        pieces = [piece for segment in found for piece in self._pieces_of(segment, roles, asked)]
        layout = layout_of([self._placed(pieces, i) for i in range(len(pieces))], self.plain.control_ids)
        missing = [(role, i) for i, role in enumerate(roles or ()) if i not in layout.pattern.slots]
        if missing:
            raise _left_out(*missing[0])
        return layout

    def _pieces_of(self, segment: Segment, roles: tuple[str, ...] | None, asked: Sequence[str]) -> list[Piece]:
        pieces = []
        for text in self.plain.split(segment.text):
            kind = ANSWER if segment.supervised else OTHER
            if text in self.plain.control:
                pieces.append(Piece([self.plain.control[text]], _pattern(text, None), kind))
                continue
            margins = None if segment.supervised else _margins(text, roles, asked)
            pieces.append(Piece(None, _pattern(text, roles), QUESTION if margins else kind, margins=margins))
        return pieces

    def _placed(self, pieces: list[Piece], i: int) -> Piece:
        """Piece `i` with what it needs of its neighbours; one without slots has its tokens then."""
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
        return piece._replace(ids=self.plain.token_ids([piece.text([])], [before])[0])


def segments(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, stop: str) -> list[Segment]:
    """The conversation, rendered, in pieces: prompt, answer with the `stop` token, prompt, answer, …, the rest.

    An answer is what the template adds to the prompt (with `add_generation_prompt`) when it is given the answer too.

    Raises:
        RowDropped: the template refuses the conversation.
        FinetuningError: the template changes what went before when a turn is added.
    """
    messages, tools = conversation
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    prompts = texts(tokenizer, [messages[:turn] for turn in turns], add_generation_prompt=True, tools=tools)
    whole = texts(tokenizer, [messages[: turn + 1] for turn in turns], tools=tools)
    found: list[Segment] = []
    before, end = "", 0
    for prompt, text in zip(prompts, whole, strict=True):
        if not prompt.startswith(before):
            raise _unstable(before, prompt)
        if not text.startswith(prompt) or stop not in text[len(prompt) :]:
            raise _unstable(prompt, text)
        found.append(Segment(prompt[end:], False))
        end = text.rindex(stop) + len(stop)
        found.append(Segment(text[len(prompt) : end], True))
        before = text
    return [*found, Segment(before[end:], False)] if before[end:] else found


def render(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> Rendered:
    """The token ids of a whole conversation, and labels for each answer and the stop token after it.

    Raises:
        RowDropped: the template does not take these messages.
        FinetuningError: the template changes what went before when a turn is added.
    """
    renderer = Renderer(tokenizer)
    (found,) = renderer.lay_out([Conversation(messages)])
    if isinstance(found, RowDropped):
        raise found
    tokens = renderer.tokenize([found])
    return Rendered(tokens.ids.tolist(), tokens.labels.tolist())


def _roles(conversation: Conversation) -> tuple[str, ...]:
    return tuple([message["role"] for message in conversation.messages])


def _is_plain(conversation: Conversation) -> bool:
    return conversation.tools is None and all(len(message) == 2 for message in conversation.messages)


def _written_by_template(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Tokens that the template itself writes around turns."""
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "an answer"}]
    text = texts(tokenizer, [turns])[0] + texts(tokenizer, [turns[:1]], add_generation_prompt=True)[0]
    return {token for token in added_tokens(tokenizer) if token.strip() and token in text}


def _pattern(text: str, roles: tuple[str, ...] | None) -> Pattern:
    """The text with a place for each slot; without roles, a text has no slots."""
    if roles is None:
        return Pattern(text.replace("%", "%%"))
    return Pattern(SLOTS.sub("%s", text.replace("%", "%%")), tuple(int(slot) for slot in SLOTS.findall(text)))


def _margins(text: str, roles: tuple[str, ...] | None, asked: Sequence[str]) -> tuple[Pattern, Pattern] | None:
    """What stands before and after the turns of user and tools in a piece of text; None where there is no such turn."""
    if roles is None:
        spans = [(text.index(content), text.rindex(content) + len(content)) for content in asked if content in text]
    else:
        spans = [slot.span() for slot in SLOTS.finditer(text) if roles[int(slot[1])] in ("user", "tool")]
    if not spans:
        return None
    return _pattern(text[: min(spans)[0]], roles), _pattern(text[max(end for _, end in spans) :], roles)


def _strings(value: Any) -> Iterator[str]:
    """All texts in a value of JSON, keys as well."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(map(_strings, chain(value.keys(), value.values())))
    elif isinstance(value, list):
        yield from chain.from_iterable(map(_strings, value))


def _left_out(role: str, turn: int) -> RowDropped:
    return RowDropped(f"the chat template leaves out or changes the {role} turn", f"turn {turn}")


def _unstable(before: str, after: str) -> FinetuningError:
    pairs = enumerate(zip(before, after, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(before), len(after)))
    shown = slice(max(0, same - 20), same + 40)
    pieces = [text[shown].replace("\ue000", "<").replace("\ue001", ">") for text in (before, after)]
    return FinetuningError(
        f"the template is not prefix-stable: {pieces[0]!r} becomes {pieces[1]!r} when the next turn is added, "
        "so that prompt and answer cannot be told apart. Use chatml or instruction instead."
    )
