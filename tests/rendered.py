"""A conversation as the model sees it, for tests that compare tokens one by one."""

from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.dataset.formats import Message, RowDropped


class Rendered(NamedTuple):
    """A conversation as the model sees it: token ids, and as labels the same ids or -100 where nothing is learned."""

    input_ids: list[int]
    labels: list[int]


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
