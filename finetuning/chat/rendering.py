"""Renders conversations by a chat template and tokenizes them piece by piece, so that each piece's tokens are known.

<|im_start|>user\\n2 + 3?<|im_end|>\\n<|im_start|>assistant\\n5<|im_end|>\\n
-> the control tokens by their ids, "user\\n2 + 3?", "\\n", "assistant\\n" and "5" each tokenized by itself

No token then lies across the end of a prompt: what the model is given to answer is exactly what preceded the answer in
training. And no text of a conversation becomes a control token, whatever it spells out.
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetuning.chat.layout_search import Layouts, control_tokens
from finetuning.chat.layouts import LaidOut, Pattern, Piece, joined, layout_of
from finetuning.chat.segments import Conversation, is_plain, roles_of, texts_of
from finetuning.chat.template import stop_text
from finetuning.chat.tokenization import PlainText, token_ids
from finetuning.dataset.formats import RowDropped
from finetuning.tokens import ANSWER, OTHER, Tokens

MOST_SYSTEM_PROMPTS = 1_000
# So many conversations with the same roles are rendered and compared before a template is relied on.
COMPARED = 100
# A piece on its way to become tokens: its place among all parts, the piece, and its text.
Text = tuple[int, Piece, str]


class Renderer:
    """Renders by the chat template of a tokenizer, and remembers what it found out about that template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.stop = tokenizer, stop_text(tokenizer)
        self._plain = PlainText(tokenizer, control_tokens(tokenizer))
        self._layouts = Layouts(tokenizer, self.stop, self._plain)
        self._compared: dict[tuple[str, ...], int] = {}
        self._system_prompts: dict[tuple[str, str], list[int]] = {}
        self._lengths: dict[str, int] = {}

    def lay_out(self, conversations: Sequence[Conversation]) -> list[LaidOut | RowDropped]:
        """Return the pieces of each conversation, or why the template does not take it.

        Their texts together are exactly what the template makes of that conversation: each is rendered and compared,
        but for a template that only writes what turns say, where the first ones with the same roles are.

        Raises:
            FinetuningError: the template changes what went before when a turn is added.
        """
        unsure = [i for i, conversation in enumerate(conversations) if not self._is_sure(conversation)]
        rendered = dict(zip(unsure, texts_of(self.tokenizer, [conversations[i] for i in unsure]), strict=True))
        found: list[LaidOut | RowDropped] = []
        for i, conversation in enumerate(conversations):
            try:
                found.append(self._pieces(conversation, rendered.get(i)))
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
        while answer and pieces[answer - 1].kind == ANSWER:
            answer -= 1
        prompt = layout_of(pieces[:answer], self._plain.control_ids)
        return self.tokenize([LaidOut(prompt, found.contents)]).ids.tolist()

    def tokenize(self, conversations: Sequence[LaidOut]) -> Tokens:
        """Return the tokens of conversations that are laid out."""
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
        """Count the tokens of a text by itself. Texts around the user's own words are few, and remembered."""
        text = pattern.fill(contents) if pattern.slots else pattern.text
        length = self._lengths.get(text)
        if length is None:
            if len(self._lengths) > MOST_SYSTEM_PROMPTS:
                self._lengths = {}
            length = self._lengths[text] = len(token_ids(self.tokenizer, [pattern.fill(contents)])[0])
        return length

    def _is_sure(self, conversation: Conversation) -> bool:
        """Whether the layout of the conversation's roles is known to be what the template makes of it."""
        return is_plain(conversation) and self._compared.get(roles_of(conversation), 0) >= COMPARED

    def _pieces(self, conversation: Conversation, text: str | RowDropped | None) -> LaidOut:
        """Return the pieces of a conversation; `text` is what the template made of it, if that is not known."""
        if isinstance(text, RowDropped):
            raise text
        # Whatever has more than a role and a content, the template may arrange by what is in it.
        if not is_plain(conversation):
            return LaidOut(self._layouts.of_one(conversation, str(text)), [])
        roles = roles_of(conversation)
        layout = self._layouts.of_roles(roles)
        contents = [message["content"] for message in conversation.messages]
        if any(layout.strips):
            contents = [c.strip() if strip else c for c, strip in zip(contents, layout.strips, strict=True)]
        if text is None:
            return LaidOut(layout, contents)
        if layout.pattern.fill(contents) == text:
            self._compared[roles] = self._compared.get(roles, 0) + layout.is_known
            return LaidOut(layout, contents)
        return LaidOut(self._layouts.of_one(conversation, text), [])
