"""A tuned model and its base, loaded once and ready to answer: what a person meets is what the exam met.

The project's renderer makes every prompt, the chat template's own token ends every answer, and answers are greedy
unless somebody asks for a temperature.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

from transformers import AutoTokenizer

from finetuning.assistant.batches import Engine, Manner, Row
from finetuning.assistant.conversations import BadRequest, Prompt, prompt_of
from finetuning.assistant.replies import Delta, Reply, Said
from finetuning.assistant.source import Source
from finetuning.chat.answers import OPENED
from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.chat.template import before_answer, stop_token
from finetuning.errors import FinetuningError
from finetuning.knowledge.library import Library
from finetuning.knowledge.passages import Passage
from finetuning.lora.loading import load_side
from finetuning.quantization import bitsandbytes_config

BASE = "base"
LEAST_ROOM = 16  # tokens of a prompt
LEAST_TEMPERATURE = 1e-6  # below it logits that are divided by it are no numbers any more
# Tokens that are read and written in all, however many more the model could: what is kept of them fills the memory.
MOST_CONTEXT = 32_768
GREETING: list[Mapping[str, Any]] = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True)
class Asking:
    """How a conversation is to be answered; what is None is as in the exam."""

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Listener(Protocol):
    """Who waits for an answer; it is told from another thread."""

    def news(self, delta: Delta) -> None:
        """Something was added to the answer."""
        ...

    def end(self, said: Said, reason: str | Exception) -> None:
        """The answer has ended: `stop`, `length`, `left`, or by an error."""
        ...


class Assistant:
    """Both sides of a source, under the names by which they are asked."""

    def __init__(self, source: Source, model_kwargs: Mapping[str, Any]) -> None:
        """Load the model, and see the adapter act.

        Args:
            model_kwargs: for `from_pretrained`, as for the exam on this machine.

        Raises:
            FinetuningError: the adapter is not whole or changes nothing.
        """
        self.source, recipe = source, source.recipe
        self.tuned, self.base = source.name, f"{source.name}/{BASE}" if source.adapter else None
        trust = recipe.base_model.trust_remote_code
        self.tokenizer = AutoTokenizer.from_pretrained(source.tokenizer, trust_remote_code=trust)
        self.renderer = Renderer(self.tokenizer)
        kwargs = dict(model_kwargs)
        if source.quantize and recipe.base_model.quantization:
            kwargs["quantization_config"] = bitsandbytes_config(recipe.base_model.quantization, kwargs["dtype"])
        mixed = recipe.training.bf16 or kwargs["dtype"] != "bfloat16"
        greeting = self.renderer.prompt(Conversation([dict(message) for message in GREETING]))
        self.model = load_side(self.tokenizer, greeting, source.base_model, source.adapter, kwargs, mixed)
        self.stop = stop_token(self.tokenizer)
        self.mark = before_answer(self.tokenizer)
        self.context_tokens = self._context()
        self._asking = Lock()
        self.library = Library(source.index, source.embedding, recipe) if source.index else None
        self.engine = Engine(self.model, self._as, self.tokenizer, self.stop)

    @property
    def names(self) -> list[str]:
        """By which the sides are asked: the tuned one first."""
        return [self.tuned, *([self.base] if self.base else [])]

    @property
    def system(self) -> str:
        """The system prompt of the training rows, or nothing."""
        return self.source.recipe.dataset.sources[0].system or ""

    @property
    def max_tokens(self) -> int:
        """Most tokens of an answer in the exam."""
        return min(self.source.recipe.evaluation.max_new_tokens, self.context_tokens - LEAST_ROOM)

    def ask(self, side: str, conversation: Conversation, how: Asking, listener: Listener) -> tuple[Row, Prompt]:
        """Have one side answer; `listener` is told of the answer as it comes.

        Returns:
            The row, which ends when its `left` is set, and the prompt.

        Raises:
            BadRequest: the conversation cannot be answered, or not with so many tokens.
            Busy: too many wait already.
        """
        limit = how.max_tokens or self.max_tokens
        if limit > self.context_tokens - LEAST_ROOM:
            raise BadRequest(
                f"max_tokens: {limit:,}, and the model reads and writes {self.context_tokens:,} tokens in all"
            )
        with self._asking:
            passages: list[Passage] = []
            if self.library:
                messages, passages = self.library.look_up(conversation.messages)
                conversation = conversation._replace(messages=messages)
            prompt = prompt_of(self.renderer, conversation, self.context_tokens - limit)
        prompt = prompt._replace(passages=tuple(passages))
        end = str(self.tokenizer.decode(prompt.ids[-32:], skip_special_tokens=False))
        opened, offered = bool(OPENED.search(end)), bool(conversation.tools)
        reply = Reply(self.tokenizer, self.stop, self.mark, opened, how.stop, offered)

        def put(token: int) -> bool:
            delta = reply.put(token)
            if any(delta):
                listener.news(delta)
            return reply.is_complete

        def ended(reason: str | Exception) -> None:
            rest = reply.end()
            if any(rest):
                listener.news(rest)
            listener.end(reply.whole(stopped=reason == "stop"), reason)

        temperature = how.temperature if how.temperature >= LEAST_TEMPERATURE else 0.0
        seed = how.seed if temperature else None
        row = Row(prompt.ids, limit, Manner(side, temperature, how.top_p, seed), put, ended)
        self.engine.ask(row)
        return row, prompt

    def require_side(self, name: str) -> None:
        """Check that a side of that name is there.

        Raises:
            UnknownModel: there is none.
        """
        if name not in self.names:
            raise UnknownModel(f"model: there is no {name!r}; there are {', '.join(self.names)}")

    def close(self) -> None:
        """End the answering."""
        self.engine.close()

    def _as(self, side: str) -> AbstractContextManager[Any]:
        """The model speaks as that side within the context."""
        return self.model.disable_adapter() if side == self.base else nullcontext()

    def _context(self) -> int:
        """Tokens that the model reads and writes in all."""
        config = self.model.config.get_text_config()
        known = (getattr(config, "max_position_embeddings", None), self.tokenizer.model_max_length, MOST_CONTEXT)
        return int(min(number for number in known if number))


class UnknownModel(FinetuningError):
    """No side has the name that was asked for."""
