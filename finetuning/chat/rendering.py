"""Renders conversations by a chat template and tokenizes them piece by piece, so that each piece's tokens are known.

<|im_start|>user\\n2 + 3?<|im_end|>\\n<|im_start|>assistant\\n5<|im_end|>\\n
-> the control tokens by their ids, "user\\n2 + 3?", "\\n", "assistant\\n" and "5" each tokenized by itself

No token then lies across the end of a prompt: what the model is given to answer is exactly what preceded the answer in
training. And no text of a conversation becomes a control token, whatever it spells out.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetuning.chat.abilities import abilities_of, as_the_template_takes_them, require_tools
from finetuning.chat.layout_search import Layouts, Roles, control_tokens
from finetuning.chat.layouts import LaidOut, Layout, Pattern, Piece, joined, layout_of
from finetuning.chat.segments import Conversation, is_plain, learned_turns, roles_of, texts_of
from finetuning.chat.template import stops_of
from finetuning.chat.tokenization import PlainText, added_tokens, token_ids
from finetuning.dataset.row_faults import RowDropped
from finetuning.tokens import ANSWER, OTHER, THOUGHT, Tokens

MOST_SYSTEM_PROMPTS = 1_000
# So many conversations with the same roles are rendered and compared before a template is relied on.
COMPARED = 100


class Taken(NamedTuple):
    """A conversation as the template takes it, and the numbers of the turns that are learned."""

    conversation: Conversation
    learned: tuple[int, ...]


# A piece on its way to become tokens: its place among all parts, the piece, and its text.
Text = tuple[int, Piece, str]


class Renderer:
    """Renders by the chat template of a tokenizer, and remembers what it found out about that template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, learn_reasoning: bool = True) -> None:
        self.tokenizer, self.stops = tokenizer, stops_of(tokenizer)
        self.stop, self.abilities = self.stops.answer, abilities_of(tokenizer)
        self._plain = PlainText(tokenizer, control_tokens(tokenizer))
        self._layouts = Layouts(tokenizer, self.stops, self._plain, learn_reasoning)
        self._learn_reasoning = learn_reasoning
        self._compared: dict[Roles, int] = {}
        self._system_prompts: dict[tuple[str, str], list[int]] = {}
        self._lengths: dict[str, int] = {}

    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end an answer, the first one, and a call of tools."""
        ids = added_tokens(self.tokenizer)
        return [ids[text] for text in dict.fromkeys([self.stops.answer, self.stops.call])]

    def lay_out(self, conversations: Sequence[Conversation]) -> list[LaidOut | RowDropped]:
        """Return the pieces of each conversation, or why the template does not take it.

        Their texts together are exactly what the template makes of that conversation: each is rendered and compared,
        but for a template that only writes what turns say, where the first ones with the same roles are. Where the
        template changes earlier turns when a turn is added, answers before the last one may be laid out by themselves.
        """
        taken = [self._taken(conversation) for conversation in conversations]
        unsure = [i for i, one in enumerate(taken) if not isinstance(one, RowDropped) and not self._is_sure(one)]
        plain = {i: one.conversation for i, one in enumerate(taken) if not isinstance(one, RowDropped)}
        plain = {i: plain[i] for i in unsure if is_plain(plain[i])}
        rendered = texts_of(self.tokenizer, list(plain.values()))
        whole = dict(zip(plain, rendered, strict=True))
        found: list[LaidOut | RowDropped] = []
        for i, one in enumerate(taken):
            try:
                found.append(one if isinstance(one, RowDropped) else self._pieces(one, whole.get(i)))
            except RowDropped as reason:
                found.append(reason)
        return found

    def prompt(self, conversation: Conversation) -> list[int]:
        """Return the token ids that an answer to the conversation follows: the very ones that precede it in training.

        Raises:
            RowDropped: the template does not take these messages.
        """
        answered = [*conversation.messages, {"role": "assistant", "content": "an answer"}]
        (found,) = self.lay_out([Conversation(answered, conversation.tools)])
        if isinstance(found, RowDropped):
            raise found
        pieces = found.layout.pieces
        answer = max(i for i, piece in enumerate(pieces) if piece.kind == ANSWER)
        while answer and pieces[answer - 1].kind in (ANSWER, THOUGHT):
            answer -= 1
        prompt = layout_of(pieces[:answer], self._plain.control_ids)
        return self.tokenize([LaidOut(prompt, found.contents)]).ids.tolist()

    def tokenize(self, conversations: Sequence[LaidOut]) -> Tokens:
        """Return the tokens of conversations that are laid out."""
        parts: list[list[int]] = []
        kinds: list[int] = []
        ends: list[int] = []
        found: list[Text] = []
        for layout, contents, _ in conversations:
            found += [(len(parts) + offset, piece, piece.text(contents)) for offset, piece in layout.texts]
            parts += layout.parts
            kinds += layout.kinds
            ends.append(len(parts))
        self._fill(parts, found)
        tokens = joined(parts, kinds, ends)
        controls = sum([layout.controls for layout, _, _ in conversations])
        if np.count_nonzero(self._plain.is_control[tokens.ids]) > controls:
            spelled_out = [text for text in found if not self._plain.control_ids.isdisjoint(parts[text[0]])]
            for place, piece, text in spelled_out:
                parts[place] = self._plain.apart(text, piece.before)
            tokens = joined(parts, kinds, ends)
            tokens.spelled_out = sorted({bisect_right(ends, place) for place, _, _ in spelled_out})
        self._take_off_margins(tokens, parts, conversations)
        return tokens

    def _fill(self, parts: list[list[int]], found: list[Text]) -> None:
        """Put the tokens of the texts into `parts`. System prompts, which many rows share, are remembered."""
        if len(self._system_prompts) > MOST_SYSTEM_PROMPTS:
            self._system_prompts = {}
        known = self._system_prompts
        new = [text for text in found if text[1].kind != OTHER or (text[2], text[1].before) not in known]
        ids = self._plain.token_ids([text for _, _, text in new], [piece.before for _, piece, _ in new])
        for (place, piece, text), tokens in zip(new, ids, strict=True):
            parts[place] = tokens
            if piece.kind == OTHER:
                known[text, piece.before] = tokens
        for place, piece, text in found:
            if piece.kind == OTHER:
                parts[place] = known[text, piece.before]

    def _take_off_margins(self, tokens: Tokens, parts: list[list[int]], conversations: Sequence[LaidOut]) -> None:
        """Mark the tokens of a question that are not the user's own words as of kind OTHER."""
        margins, start = [], 0
        for layout, contents, _ in conversations:
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
        """Count the tokens of a text by itself. Texts around the user's own words are few, and remembered."""
        text = pattern.fill(contents) if pattern.slots else pattern.text
        length = self._lengths.get(text)
        if length is None:
            if len(self._lengths) > MOST_SYSTEM_PROMPTS:
                self._lengths = {}
            length = self._lengths[text] = len(token_ids(self.tokenizer, [pattern.fill(contents)])[0])
        return length

    def _taken(self, conversation: Conversation) -> Taken | RowDropped:
        """Return the conversation as the template takes it, up to the last answer that is learned."""
        learned = learned_turns(conversation)
        until = conversation.messages[: learned[-1] + 1] if learned else conversation.messages
        try:
            require_tools(until, conversation.tools, self.abilities)
            messages = as_the_template_takes_them(until, self.abilities)
        except RowDropped as reason:
            return reason
        return Taken(Conversation(messages, conversation.tools), learned)

    def _is_sure(self, taken: Taken) -> bool:
        """Whether the layout of the conversation's roles is known to be what the template makes of it."""
        conversation, learned = taken
        return is_plain(conversation) and self._compared.get((roles_of(conversation), learned), 0) >= COMPARED

    def _pieces(self, taken: Taken, whole: str | RowDropped | None) -> LaidOut:
        """Return the pieces of a conversation; `whole` is what the template made of it, if that is known."""
        if isinstance(whole, RowDropped):
            raise whole
        conversation, learned = taken
        layouts = self._by_roles(taken)
        known = [_with_contents(layout, conversation) for layout in layouts]
        if known and whole is None:
            return _together(known)
        if len(known) == 1 and known[0].text == whole:
            self._count(taken, layouts)
            return known[0]
        texts = self._layouts.texts(conversation, learned)
        if [laid_out.text for laid_out in known] == [text.text for text in texts]:
            self._count(taken, layouts)
            return _together(known)
        return _together([LaidOut(layout, []) for layout in self._layouts.of_one(conversation, texts)])

    def _by_roles(self, taken: Taken) -> list[Layout]:
        """Return the layouts of the conversation's roles; none where the template may arrange it by what is in it."""
        conversation, learned = taken
        thinks = not self._learn_reasoning and any("</" in message["content"] for message in conversation.messages)
        # Whatever has more than a role and a content, the template may arrange by what is in it.
        if thinks or not is_plain(conversation):
            return []
        try:
            return self._layouts.of_roles(roles_of(conversation), learned)
        except RowDropped:
            return []

    def _count(self, taken: Taken, layouts: list[Layout]) -> None:
        """Count a conversation whose layouts, by its roles, were what the template makes of it."""
        key = roles_of(taken.conversation), taken.learned
        self._compared[key] = self._compared.get(key, 0) + all(layout.is_known for layout in layouts)


def _with_contents(layout: Layout, conversation: Conversation) -> LaidOut:
    contents = [message["content"] for message in conversation.messages[: layout.turns]]
    if any(layout.strips):
        contents = [c.strip() if strip else c for c, strip in zip(contents, layout.strips, strict=True)]
    return LaidOut(layout, contents)


def _together(laid_out: list[LaidOut]) -> LaidOut:
    """Return the last one, with the earlier ones in it."""
    return laid_out[-1]._replace(earlier=tuple(laid_out[:-1]))
