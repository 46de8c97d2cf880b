"""A model on this machine as a judge: loaded when it is first asked, and out of memory when it is not.

Its prompts are rendered as those of an exam, and its replies are greedy: the same question has the same reply.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from finetuning.base_model.loading import freeing_models
from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.dataset.row_faults import RowDropped
from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.evaluation.generation import Question, generate
from finetuning.judge.asker import Reply
from finetuning.judge.protocol import Message
from finetuning.judge.refusals import QuestionRefused, over_budget
from finetuning.lora.loading import load_side
from finetuning.out_of_memory import is_out_of_memory
from finetuning.progress import Progress
from finetuning.recipe.evaluation import EvaluationSpec
from finetuning.recipe.judge import JudgeSpec


@dataclass(frozen=True)
class JudgingWeights:
    """A model on the disk, as folders, and how this machine loads it."""

    source: str
    """What it is, for people and for the ledger: an artifact with its fingerprint."""
    base_model: Path
    adapter: Path | None
    tokenizer: Path
    model_kwargs: dict[str, Any]
    mixed_precision: bool


class JudgingModel:
    """Asks a model on this machine, one question at a time."""

    def __init__(
        self,
        spec: JudgeSpec,
        weights: JudgingWeights,
        progress: Progress,
        exclusive: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Load nothing yet.

        Args:
            exclusive: keeps others from the machine's GPU while the model is in memory.
        """
        self._spec, self._weights, self._progress, self._exclusive = spec, weights, progress, exclusive
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any, Renderer] | None = None
        self.sent = 0
        self.name, self.where = f"{spec.name} ({weights.source})", "this machine"

    def ask(self, messages: list[Message]) -> Reply:
        """Return what the model replies.

        Raises:
            FinetuningError: the model cannot take the question, memory ran out, or all requests are used up.
        """
        with self._lock:
            if self.sent >= self._spec.max_requests:
                raise over_budget(self._spec)
            self.sent += 1
            with self._memory("it was loaded"):
                model, tokenizer, renderer = self._loaded = self._loaded or self._load(messages)
            prompt_ids = self._prompt(renderer, messages)
            context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
            if context and len(prompt_ids) + self._spec.max_tokens > context:
                said = f"{len(prompt_ids):,} tokens, and the model reads and writes {context:,}"
                raise QuestionRefused(f"evaluation.judge: {self._spec.name} cannot take the question: {said}.", said)
            asked = [Question("", messages, prompt_ids, "")]
            exam = EvaluationSpec(max_new_tokens=self._spec.max_tokens, batch_size=1)
            with self._memory(f"{len(prompt_ids):,} tokens were judged"):
                (answer,) = generate(model, tokenizer, asked, exam, Progress(lambda line: None, ""), self._spec.name)
        return Reply(answer.text, (len(prompt_ids), answer.tokens))

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Keep the machine's GPU for the model within the block, after which it is out of memory."""
        with self._exclusive(), freeing_models():
            try:
                yield
            finally:
                self._loaded = None

    @contextmanager
    def _memory(self, what: str) -> Iterator[None]:
        """Say whose memory ran out within the block."""
        try:
            yield
        except Exception as error:
            cause = error.__cause__ if isinstance(error, FinetuningError) else error  # `generate` names its own key
            if cause is None or not is_out_of_memory(cause):
                raise
            raise InfrastructureError(
                f"evaluation.judge.name: memory ran out while {what}: {self._spec.name} is too large for this machine "
                f"({cause}). What was judged is kept and not asked again: name a smaller model, or "
                "free memory."
            ) from error

    def close(self) -> None:
        """Nothing is held."""

    def without_key(self, text: str) -> str:
        """Return the text: there is no key."""
        return text

    def _load(self, messages: list[Message]) -> tuple[Any, Any, Renderer]:
        found = self._weights
        self._progress.update(f"judge: loading {found.source}")
        trust = found.model_kwargs["trust_remote_code"]
        tokenizer = AutoTokenizer.from_pretrained(found.tokenizer, trust_remote_code=trust)
        renderer = Renderer(tokenizer)
        prompt = self._prompt(renderer, messages)
        model = load_side(tokenizer, prompt, found.base_model, found.adapter, found.model_kwargs, found.mixed_precision)
        return model, tokenizer, renderer

    def _prompt(self, renderer: Renderer, messages: list[Message]) -> list[int]:
        """The tokens of the question; as one message where the template has none of the system's."""
        try:
            return renderer.prompt(Conversation([dict(message) for message in messages]))
        except RowDropped:
            whole = "\n\n".join(message["content"] for message in messages)
        try:
            return renderer.prompt(Conversation([{"role": "user", "content": whole}]))
        except RowDropped as reason:
            raise FinetuningError(
                f"evaluation.judge.name: the chat template of {self._spec.name} does not take a question ({reason}). "
                "Name another recipe."
            ) from None
