"""Base and tuned model beside each other: the same rows, prompts and greedy decoding, and what is only noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from peft import PeftModel
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from finetuning.chat_template import stop_token
from finetuning.conversations import conversation_of
from finetuning.embeddings import give_rows, untrained_rows
from finetuning.errors import FinetuningError
from finetuning.metrics import Metric, final_answer, metrics_for
from finetuning.progress import Progress
from finetuning.quantization import load_model
from finetuning.recipe import EvaluationSpec
from finetuning.rendering import Renderer

RESAMPLES = 10_000


@dataclass(frozen=True)
class Question:
    """One eval row: its prompt for people and for the model (token ids), and the reference answer."""

    place: str
    messages: list[dict[str, str]]
    prompt_ids: list[int]
    reference: str


@dataclass(frozen=True)
class Answer:
    """What a model answered; `tokens` counts the stop token, `stopped` says that it came before `max_new_tokens`."""

    text: str
    tokens: int
    stopped: bool


class GenerationProgress(StoppingCriteria):
    """Counts new tokens of a running batch for `progress`; stops nothing."""

    def __init__(self, progress: Progress, what: str) -> None:
        self.progress, self.what, self.tokens = progress, what, 0

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Booleans (rows,), all False."""
        self.tokens += 1
        self.progress.update(f"{self.what} · {self.tokens} tokens into each answer")
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def questions_of(chat_dataset: Path, tokenizer: PreTrainedTokenizerBase, rows: int) -> list[Question]:
    """The first `rows` conversations of the eval split; their order is fixed by the data set's seed."""
    table = pq.read_table(chat_dataset / "eval.parquet", columns=["messages", "tools", "place"]).slice(0, rows)
    questions, renderer = [], Renderer(tokenizer)
    for row in table.to_pylist():
        conversation = conversation_of(row)
        *prompt, answer = conversation.messages
        ids = renderer.prompt(conversation._replace(messages=prompt))
        questions.append(Question(row["place"], prompt, ids, answer["content"]))
    return questions


def require_final_answers(questions: Sequence[Question]) -> None:
    """Nothing.

    Raises:
        FinetuningError: a reference states no final answer, so that no answer could ever be right.
    """
    unclear = [question for question in questions if final_answer(question.reference) is None]
    if unclear:
        raise FinetuningError(
            f"evaluation.metrics: final-answer: {len(unclear)} of {len(questions)} references state no final answer; "
            f"the first is {unclear[0].place}: {unclear[0].reference[:80]!r}. End them with `#### ` and the answer, or "
            "use another metric."
        )


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    spec: EvaluationSpec,
    progress: Progress,
    name: str,
) -> list[Answer]:
    """An answer to each question, in their order, by greedy decoding in left-padded batches of similar length."""
    stop = stop_token(tokenizer)
    order = sorted(range(len(questions)), key=lambda i: len(questions[i].prompt_ids))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), spec.batch_size):
        batch = order[start : start + spec.batch_size]
        width = max(len(questions[i].prompt_ids) for i in batch)
        pads = [width - len(questions[i].prompt_ids) for i in batch]
        rows = [[stop] * pad + questions[i].prompt_ids for pad, i in zip(pads, batch, strict=True)]
        mask = [[0] * pad + [1] * (width - pad) for pad in pads]
        what = f"{name}: {start}/{len(order)} rows"
        with torch.inference_mode():
            output = model.generate(
                input_ids=torch.tensor(rows, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                max_new_tokens=spec.max_new_tokens,
                do_sample=False,
                eos_token_id=stop,
                pad_token_id=stop,
                stopping_criteria=StoppingCriteriaList([GenerationProgress(progress, what)]),
            )
        for i, ids in zip(batch, output[:, width:].tolist(), strict=True):
            answers[i] = answer_of(tokenizer, ids, stop)
    return [answers[i] for i in range(len(questions))]


def answer_of(tokenizer: PreTrainedTokenizerBase, ids: list[int], stop: int) -> Answer:
    """The answer in new token `ids`, which are padded with the `stop` token."""
    stopped = stop in ids
    length = ids.index(stop) if stopped else len(ids)
    return Answer(str(tokenizer.decode(ids[:length], skip_special_tokens=True)), length + stopped, stopped)


def bootstrap_interval(differences: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of paired `differences` (rows,), by the percentile bootstrap.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.
    """
    rng = np.random.default_rng(seed)
    means = [rng.choice(differences, len(differences)).mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def compare(metric: Metric, references: list[str], base: list[Answer], tuned: list[Answer]) -> dict[str, Any]:
    """Mean score of base and tuned, the gain, and its 95 % interval."""
    before = np.array([metric.score(a.text, r) for a, r in zip(base, references, strict=True)])
    after = np.array([metric.score(a.text, r) for a, r in zip(tuned, references, strict=True)])
    return {
        "base": before.mean().item(),
        "tuned": after.mean().item(),
        "gain": (after - before).mean().item(),
        "interval": list(bootstrap_interval(after - before)),
        "higher_is_better": metric.higher_is_better,
    }


def load_tuned(base_model: Any, adapter: Path) -> PeftModel:
    """The base model with the adapter that lies in `adapter`.

    Raises:
        FinetuningError: the adapter changes nothing: one of its B matrices is zero all over, or the rows that it
            brings for new tokens are still what the base model has there.
    """
    model = PeftModel.from_pretrained(base_model, str(adapter))
    zero = [n for n, p in model.named_parameters() if "lora_B" in n and not torch.any(p)]
    if zero:
        raise FinetuningError(
            f"{adapter}: {len(zero)} B matrices of the adapter are zero (the first is {zero[0]}): nothing was learned "
            "there. Raise training.learning_rate or the number of steps."
        )
    same = untrained_rows(model)
    if same:
        raise FinetuningError(
            f"{adapter}: the rows of the new tokens in {same[0]} are what they were before training: nothing was "
            "learned there. Raise training.learning_rate or the number of steps."
        )
    return model


def evaluate(
    spec: EvaluationSpec,
    chat_dataset: Path,
    base_model: Path,
    adapter: Path,
    model_kwargs: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Metrics of base and tuned, and every question with both answers: {"rows", "metrics", "samples"}.

    Raises:
        FinetuningError: the adapter changes nothing.
    """
    progress.update("loading the base model")
    trust = model_kwargs["trust_remote_code"]
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=trust)
    questions = questions_of(chat_dataset, tokenizer, spec.rows)
    if "final-answer" in spec.metrics:
        require_final_answers(questions)
    answers = {}
    for name in ("base", "tuned"):
        # Each from the disk, as whoever uses the published adapter loads it: bitsandbytes packs the weights of a model
        # that has answered by itself in another way, and its numbers are not quite the same then.
        model = load_model(base_model, **model_kwargs)
        give_rows(model, tokenizer, base_model, str(adapter), trust)
        model = load_tuned(model, adapter) if name == "tuned" else model
        answers[name] = generate(model.eval(), tokenizer, questions, spec, progress, name)
        del model
    references = [question.reference for question in questions]
    metrics = metrics_for(spec.metrics)
    rows = zip(questions, answers["base"], answers["tuned"], strict=True)
    return {
        "rows": len(questions),
        "metrics": {name: compare(metric, references, **answers) for name, metric in metrics.items()},
        "samples": [sample(*row, metrics) for row in rows],
    }


def sample(question: Question, base: Answer, tuned: Answer, metrics: dict[str, Metric]) -> dict[str, Any]:
    """One question with both answers and the scores of the first metric."""
    score = next(iter(metrics.values())).score
    return {
        "place": question.place,
        "question": question.messages[-1]["content"],
        "reference": question.reference,
        "base": base.text,
        "tuned": tuned.text,
        "base_score": score(base.text, question.reference),
        "tuned_score": score(tuned.text, question.reference),
    }
