"""Base and tuned model beside each other: the same rows, prompts and greedy decoding, and what is only noise."""

import hashlib
import json
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow.parquet as pq
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetuning.base_model.loading import freeing_models
from finetuning.chat.answers import split_thought
from finetuning.chat.conversations import conversation_of
from finetuning.chat.rendering import Renderer
from finetuning.dataset.other_formats import TEXT_ROLE, is_text
from finetuning.errors import FinetuningError
from finetuning.evaluation.generation import Question, generate
from finetuning.evaluation.metrics import Outcome
from finetuning.evaluation.python_tests import passes
from finetuning.evaluation.references import ASKED, exam_rows, references_of, require_answerable
from finetuning.evaluation.report import Answering
from finetuning.lora.loading import load_side
from finetuning.progress import Progress
from finetuning.recipe.evaluation import UNBOUNDED, EvaluationSpec
from finetuning.training.peak_memory import PeakMemory
from finetuning.training.supervised_loss import supervised_loss

ANSWERS, ANSWERS_WITHOUT = "answers.parquet", "answers_without_passages.parquet"


@dataclass(frozen=True)
class Exam:
    """The eval rows that both models answer: questions, and the same rows as tokens with labels, in the same order."""

    tokenizer: PreTrainedTokenizerBase
    questions: list[Question]
    input_ids: list[list[int]]
    labels: list[list[int]]
    without: list[Question] = field(default_factory=list)
    """The same questions without passages; none where they have none."""
    golden: list[list[int]] = field(default_factory=list)
    """The places (from 1) of the passages that have the answer."""
    ranks: list[int | None] = field(default_factory=list)
    """Where the first of those was found; 0 for not found, None where there is none to be found."""

    def digest(self) -> str:
        """Sixteen hexadecimal digits that are the same for the same rows in the same tokens."""
        rows = [[q.prompt_ids, q.reference] for q in self.questions]
        more = [[q.prompt_ids for q in self.without]] if self.without else []
        content = json.dumps([rows, self.input_ids, self.labels, *more], separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Candidate:
    """A model that sits the exam: a base model, or what an adapter made of it."""

    name: str
    """What the log calls it: base, tuned or published."""
    base_model: Path
    adapter: Path | None
    model_kwargs: dict[str, Any]
    mixed_precision: bool = True
    """Whether the adapter's products were made in the number format of the model in training."""

    def load(self, exam: Exam) -> Any:
        """Load the model, ready to answer.

        Raises:
            FinetuningError: the adapter is not whole or changes nothing.
        """
        prompt_ids = exam.questions[0].prompt_ids
        return load_side(
            exam.tokenizer, prompt_ids, self.base_model, self.adapter, self.model_kwargs, self.mixed_precision
        )


def exam_of(spec: EvaluationSpec, chat_dataset: Path, trust_remote_code: bool = False) -> Exam:
    """Return the first `spec.rows` conversations of the eval split as an exam.

    Raises:
        FinetuningError: by one of the metrics no answer could be right.
    """
    tokenizer = AutoTokenizer.from_pretrained(chat_dataset / "tokenizer", trust_remote_code=trust_remote_code)
    questions = questions_of(chat_dataset, tokenizer, spec.rows, spec.max_new_tokens)
    # How long they are was looked at before the training.
    require_answerable(spec, references_of(chat_dataset, spec.rows, with_thoughts=False), whole=True)
    table = exam_rows(chat_dataset, spec.rows, "input_ids", "labels")
    exam = Exam(tokenizer, questions, table["input_ids"].to_pylist(), table["labels"].to_pylist())
    if ASKED not in pq.read_schema(chat_dataset / "eval.parquet").names:
        return exam
    shown = exam_rows(chat_dataset, spec.rows, "golden", "rank")
    return replace(
        exam,
        without=questions_of(chat_dataset, tokenizer, spec.rows, spec.max_new_tokens, asked=ASKED),
        golden=shown["golden"].to_pylist(),
        ranks=shown["rank"].to_pylist(),
    )


def questions_of(
    chat_dataset: Path,
    tokenizer: PreTrainedTokenizerBase,
    rows: int,
    most: int | None = None,
    asked: Literal["messages", "asked"] = "messages",
) -> list[Question]:
    """The first `rows` conversations of the eval split; their order is fixed by the data set's seed.

    Of a text, the first half is the question, and at most `most` tokens of what comes next the answer.

    Args:
        asked: the column with the conversation: as it is asked, or (`asked`) without its passages.
    """
    table = exam_rows(chat_dataset, rows, "tools", "place", "input_ids", *([asked] if asked != "messages" else []))
    questions, renderer = [], Renderer(tokenizer)
    for row in table.to_pylist():
        row["messages"] = row[asked]
        if is_text(row["messages"]):
            questions.append(half_of(row, tokenizer, most))
            continue
        conversation = conversation_of(row)
        *prompt, answer = conversation.messages
        ids = renderer.prompt(conversation._replace(messages=prompt))
        # What the model thinks is no part of its answer; a template without a place for it has it learned as text.
        reference = split_thought(answer["content"])[1] if renderer.abilities.reasoning else answer["content"]
        questions.append(Question(row["place"], prompt, ids, reference))
    return questions


def half_of(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, most: int | None) -> Question:
    """The first half of a text's tokens as a question, and as the answer the `most` next ones."""
    ids, half = row["input_ids"], max(1, len(row["input_ids"]) // 2)
    end = len(ids) if most is None else half + most
    parts = (ids[:half], ids[half:end], ids[end:])
    given, rest, after = (str(tokenizer.decode(part, skip_special_tokens=True)) for part in parts)
    return Question(row["place"], [{"role": TEXT_ROLE, "content": given}], ids[:half], rest, after)


@freeing_models()
def sit(
    spec: EvaluationSpec,
    exam: Exam,
    candidate: Candidate,
    progress: Progress,
    folder: Path,
) -> Answering:
    """Let a model answer the exam, write its answers into `folder`, and return what that took.

    `outcomes` reads the answers.

    Raises:
        FinetuningError: the adapter is not whole or changes nothing, or memory ran out.
    """
    name = candidate.name
    progress.update(f"{name}: loading the model")
    with PeakMemory() as memory:
        model = candidate.load(exam)
        started = time.monotonic()
        answers = generate(model, exam.tokenizer, exam.questions, spec, progress, name)
        seconds = time.monotonic() - started
        losses = losses_of(model, exam, progress, name) if measures_loss(spec) else [(0.0, 0)] * len(answers)
        without = None
        if exam.without:
            without = sit_without(spec, exam, model, progress, f"{name} without passages", folder)
    passed = [0.0] * len(answers)
    if runs_code(spec):
        texts = [answer.text for answer in answers]
        passed = passes(texts, [question.reference for question in exam.questions], progress, name)
    rows = [
        Outcome(question.reference, answer.text, answer.stopped, *loss, code)
        for question, answer, loss, code in zip(exam.questions, answers, losses, passed, strict=True)
    ]
    # What a judge says is of two models, and stands in the report.
    pd.DataFrame(rows).drop(columns="judged").to_parquet(folder / ANSWERS)
    tokens = sum(answer.tokens for answer in answers)
    return Answering(
        tokens=tokens,
        seconds=round(seconds, 1),
        tokens_per_second=round(tokens / max(seconds, 1e-9), 1),
        peak_memory_mb=memory.mib,
        rows=len(answers) if without else None,
        without=without,
    )


def sit_without(
    spec: EvaluationSpec, exam: Exam, model: Any, progress: Progress, name: str, folder: Path
) -> tuple[float, int]:
    """Let the model answer the same questions without passages; return the seconds and tokens that it took."""
    started = time.monotonic()
    answers = generate(model, exam.tokenizer, exam.without, spec, progress, name)
    seconds = time.monotonic() - started
    rows = [Outcome(q.reference, a.text, a.stopped) for q, a in zip(exam.without, answers, strict=True)]
    pd.DataFrame(rows).drop(columns="judged").to_parquet(folder / ANSWERS_WITHOUT)
    return round(seconds, 1), sum(answer.tokens for answer in answers)


def outcomes(folder: Path, file: str = ANSWERS) -> list[Outcome]:
    """What a model made of each row, as `sit` left it, without what it thought before its answer."""
    rows = [Outcome(**row) for row in pq.read_table(folder / file).to_pylist()]
    return [
        row._replace(reference=split_thought(row.reference)[1], answer=split_thought(row.answer)[1]) for row in rows
    ]


def measures_loss(spec: EvaluationSpec) -> bool:
    """Whether the loss of each row is needed."""
    return not set(UNBOUNDED).isdisjoint(spec.metrics)


def runs_code(spec: EvaluationSpec) -> bool:
    """Whether the code in answers is run."""
    return "python-tests" in spec.metrics


def losses_of(model: Any, exam: Exam, progress: Progress, name: str) -> list[tuple[float, int]]:
    """Return for each row the summed loss (nats) of its supervised tokens, and their number.

    Row by row: nothing is padded, so that a row's loss depends on no other.

    Raises:
        FinetuningError: the loss of a row is not a finite number.
    """
    losses, head = [], model.get_output_embeddings()
    for number, (input_ids, labels) in enumerate(zip(exam.input_ids, exam.labels, strict=True)):
        progress.update(f"{name}: loss of {number}/{len(exam.labels)} rows measured")
        tensors = {"input_ids": torch.tensor([input_ids]), "labels": torch.tensor([labels])}
        with torch.no_grad():
            loss, count = supervised_loss(model, head, {key: value.to(model.device) for key, value in tensors.items()})
        losses.append((loss.item(), int(count)))
        if not math.isfinite(loss.item()):
            raise FinetuningError(
                f"evaluation.metrics: the {name} model's loss of {exam.questions[number].place} is {loss.item()}. "
                "Lower training.learning_rate if it is the tuned model's; if not, base_model.dtype may be too narrow."
            )
    return losses
