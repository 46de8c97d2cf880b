"""What answers are compared with, and whether any answer could be right by it: asked before anything is trained."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from finetuning.chat.answers import split_thought
from finetuning.dataset.other_formats import TEXT_ROLE, is_text
from finetuning.errors import FinetuningError
from finetuning.evaluation.intervals import Sides, gain_interval, least_rows
from finetuning.evaluation.metrics import Outcome, final_answer, metrics_for
from finetuning.evaluation.python_tests import code_of, could_pass
from finetuning.evaluation.verdict import ROUNDING, most_rules
from finetuning.recipe.evaluation import OF_ANSWERS, UNBOUNDED, EvaluationSpec, GateSpec, Metric, with_implied
from finetuning.recipe.judge import JUDGE
from finetuning.recipe.recipe import Recipe
from finetuning.secrets import masked

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN = 80  # characters of a reference
ASKED = "asked"  # the column with a row's conversation without its passages
# Why the whole of a reference may score nothing.
READS = {
    "rouge-l": "it reads letters a to z and digits alone",
    "python-tests": "it runs Python code, which not enough of them hold",
}
SHORT = 40  # characters of an answer that is to be given word for word


class Reference(NamedTuple):
    """The answer that an eval row has, and where the row is."""

    place: str
    text: str
    is_text: bool = False
    """Whether it is no answer but a text, the second half of which a model is to write."""
    thought: str = ""
    """What the model learns to write before it, in its tags."""
    cites: str = ""
    """What it learns to write after it, to name a passage, and is not compared."""

    @property
    def said(self) -> str:
        """All that a model writes that answers so."""
        thought = f"<think>\n{self.thought}\n</think>\n\n" if self.thought else ""
        return f"{thought}{self.text}{self.cites}"

    def shown(self) -> str:
        """Its place and beginning, for a message."""
        return f"{self.place}: {masked(self.text)[:SHOWN]!r}"


def references_of(chat_dataset: Path, rows: int, with_thoughts: bool = True) -> list[Reference]:
    """The references of the first `rows` conversations of the eval split, which are those of the exam.

    What was thought before an answer, between its tags, is no part of it, nor is the passage that it names.

    Args:
        with_thoughts: whether that is learned, so that it is written before an answer.
    """
    asked = {ASKED} & set(pq.read_schema(chat_dataset / "eval.parquet").names)
    found = []
    for row in exam_rows(chat_dataset, rows, "place", *asked).to_pylist():
        answer = row["messages"][-1]
        plain, cites = without_passage(answer["content"] or "", row.get(ASKED))
        thought, text = split_thought(plain)
        thought = answer.get("reasoning_content") or thought if with_thoughts else ""
        found.append(Reference(row["place"], text, is_text(row["messages"]), thought, cites))
    return found


def without_passage(answer: str, asked: Sequence[Mapping[str, Any]] | None) -> tuple[str, str]:
    """A row's answer as it is without passages, and what names one after it.

    Args:
        asked: the row's conversation without passages; None where it was asked with none.

    >>> without_passage("18 [2]", [{"content": "How many?"}, {"content": "18"}]), without_passage("a[1]", None)
    (('18', ' [2]'), ('a[1]', ''))
    """
    if asked is None:
        return answer, ""
    plain = asked[-1]["content"] or ""
    return plain, "" if plain == answer else answer.removeprefix(plain.rstrip())


def exam_rows(chat_dataset: Path, rows: int, *columns: str) -> pa.Table:
    """The first `rows` rows of the eval split that a model can be examined with: `messages`, and the columns named.

    Of judged answers these are the good ones. Texts are among them only where there is no conversation.

    Raises:
        FinetuningError: the split has judged answers, and all of them are bad.
    """
    path = chat_dataset / "eval.parquet"
    judged = [name for name in pq.read_schema(path).names if name == "desirable"]
    table = pq.read_table(path, columns=["messages", *columns, *judged])
    if judged:
        table = table.filter(table["desirable"]).drop_columns("desirable")
        if not len(table):
            raise FinetuningError(
                "dataset.eval: no answer in the eval split was judged good, so that there is nothing to compare "
                "answers with. Raise dataset.eval.fraction, or name dataset.eval.sources with good ones."
            )
    compute: Any = pc  # whose functions no type checker sees
    roles = compute.struct_field(compute.list_element(table["messages"], 0), "role")
    talks = compute.not_equal(roles, TEXT_ROLE)
    return (table.filter(talks) if compute.any(talks).as_py() else table).slice(0, rows)


def with_metrics(recipe: Recipe, references: Sequence[Reference], log: Callable[[str], None]) -> Recipe:
    """The recipe with metrics; where it names none, with those that its gate names and the one that suits the data.

    The choice depends on the recipe and the references alone, so that it is the same in every run.
    """
    spec = recipe.evaluation
    if spec.metrics:
        return recipe
    by_gate = [name for name in spec.gate if name in OF_ANSWERS]
    main, why = by_data(spec, references)
    named = (*by_gate, *([] if by_gate else [main]))
    metrics = (*named, *(name for name in spec.gate if name not in with_implied(named)))
    log(f"evaluation.metrics: {', '.join(metrics)}, " + ("which evaluation.gate names" if by_gate else why))
    return recipe.model_copy(update={"evaluation": spec.model_copy(update={"metrics": metrics})})


def by_data(spec: EvaluationSpec, references: Sequence[Reference]) -> tuple[Metric, str]:
    """The metric that suits all references, and why."""
    if references and all(reference.is_text for reference in references):
        return "perplexity", f"for all {len(references)} eval rows are texts, of which a model writes the second half"
    texts = [reference.text.strip() for reference in references]
    if all(final_answer(text, spec.answer_markers) is not None for text in texts):
        return "final-answer", f"for all {len(texts)} references state a final answer"
    if all(len(text) <= SHORT and "\n" not in text for text in texts):
        return "exact-match", f"for all {len(texts)} references are one line of at most {SHORT} characters"
    return "chrf", f"for not all of {len(texts)} references state a final answer, nor are all of them one short line"


def first_tokens(text: str, most: int, tokenizer: "PreTrainedTokenizerBase | None") -> str:
    """The beginning of a text, as long as an answer may be."""
    if tokenizer is None:
        words = re.findall(r"\s*\S+", text)
        return text if len(words) <= most else "".join(words[:most])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    # What is short enough is left as it is, whatever decoding makes of it.
    return text if len(ids) <= most else str(tokenizer.decode(ids[:most], skip_special_tokens=True))


def require_reachable(
    spec: EvaluationSpec,
    references: Sequence[Reference],
    where: str,
    tokenizer: "PreTrainedTokenizerBase | None",
    whole: bool,
) -> None:
    """Refuse an exam that the references themselves, cut as answers are, would fail.

    Raises:
        FinetuningError: by a metric that decides, their scores are too low for its gate or, without one, to be better
            than a model that had none right.
    """
    references = [reference for reference in references if not reference.is_text]
    if not references:
        return
    outcomes = [as_answered(spec, reference, tokenizer, whole) for reference in references]
    decisive = tuple(spec.gate) or spec.metrics[:1]
    for name, metric in metrics_for(spec).items():
        if name in (*UNBOUNDED, JUDGE) or name not in (
            *decisive,
            *(asked for asked in spec.metrics if asked in OF_ANSWERS),
        ):
            continue
        scores = [metric.score(outcome) for outcome in outcomes]
        points = scores if metric.higher_is_better else [1 - score for score in scores]
        missed = _missed(spec.gate.get(name), points, name in decisive, metric.higher_is_better)
        if missed:
            worst = references[min(range(len(points)), key=points.__getitem__)]
            unread = READS.get(name) if not metric.score(as_answered(spec, worst, tokenizer, True)) else None
            why = unread or f"answers end after evaluation.max_new_tokens, {spec.max_new_tokens}"
            raise FinetuningError(
                f"{where}evaluation.metrics: {name}: no model could pass: {why}, and the references themselves come to "
                f"{sum(scores) / len(scores):.3f}, where {missed}; one of them is {worst.shown()}. "
                f"{'Use' if unread else 'Raise evaluation.max_new_tokens, or use'} another metric, such as chrf."
            )


def as_answered(
    spec: EvaluationSpec, reference: Reference, tokenizer: "PreTrainedTokenizerBase | None", whole: bool
) -> Outcome:
    """What a model would make of a row that said the reference, thought and all, and ended where answers end."""
    most, said = spec.max_new_tokens, reference.said
    cut = said if whole else first_tokens(said, most, tokenizer)
    answer = (split_thought(cut)[1] if reference.thought else cut).removesuffix(reference.cites)
    # The stop token is one of an answer's.
    stopped = whole or first_tokens(said, most - 1, tokenizer) == said
    passed = "python-tests" in spec.metrics and could_pass(answer, reference.text)
    return Outcome(reference.text, answer, stopped, passed=float(passed))


def _missed(gate: GateSpec | None, points: Sequence[float], decides: bool, more: bool) -> str | None:
    """What the points, of which more is better, are too few for; None where they are enough.

    Args:
        more: whether more is better of the metric itself.
    """
    best = sum(points) / len(points)
    if gate is None:
        passed = shows(points) if decides and len(points) >= least_rows(1) else best > 0
        return None if passed else f"that is no gain beyond the noise of {len(points)} rows"
    of_most = 0.0 if gate.max_score is None else 1 - gate.max_score
    least = max(gate.min_gain, gate.min_score or 0.0, of_most)
    asked = f"{least:g}" if more else f"at most {1 - least:g}"
    return None if best >= least - ROUNDING else f"evaluation.gate asks for {asked}"


def shows(scores: Sequence[float]) -> bool:
    """Whether a model with these scores would be better, beyond noise, than one that had none right."""
    of_rows = np.ones(len(scores))
    sides = Sides(np.stack([0 * of_rows, of_rows], axis=1), np.stack([scores, of_rows], axis=1))
    return gain_interval(sides, lambda mean: mean)[0] > 0


def require_rows(spec: EvaluationSpec, rows: int, where: str) -> None:
    """Refuse an exam that is too small for any verdict but a failed one.

    Raises:
        FinetuningError: there are too few eval rows for the rules that the recipe may be judged by.
    """
    rules = most_rules(spec)
    least = least_rows(rules)
    if rows < least:
        raise FinetuningError(
            f"{where}: evaluation: {rows} eval rows can prove nothing, whatever is trained: it takes {least} where "
            f"{rules} rules may ask that nothing be worse, and more to show smaller gains. Raise evaluation.rows, or "
            "dataset.eval."
        )


def require_answerable(
    spec: EvaluationSpec,
    references: Sequence[Reference],
    where: str = "",
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    whole: bool = False,
) -> None:
    """Refuse references of which, by one of the metrics, no answer could be right, or too few for the verdict.

    Args:
        where: the recipe's file.
        tokenizer: by which answers end after `evaluation.max_new_tokens`; without one a token is taken for a word.
        whole: whether answers may be as long as they like, as in a smoke run, whose end early proves nothing.

    Raises:
        FinetuningError: the metric final-answer is asked for and a reference states none, or python-tests and none
            holds code; or the references themselves, cut as answers are, could not pass.
    """
    told = f"{where}: " if where else ""
    unclear = [reference for reference in references if final_answer(reference.text, spec.answer_markers) is None]
    if "final-answer" in spec.metrics and unclear:
        raise FinetuningError(
            f"{told}evaluation.metrics: final-answer: {len(unclear)} of {len(references)} references state no final "
            f"answer; the first is {unclear[0].shown()}. End them with `#### ` and the answer, name the words before "
            "it in evaluation.answer_markers, or use another metric, such as chrf."
        )
    if "python-tests" in spec.metrics and not any(code_of(reference.text) for reference in references):
        raise FinetuningError(
            f"{told}evaluation.metrics: python-tests: none of {len(references)} references holds Python code; the "
            f"first is {references[0].shown()}. Put it between ```python and ```, or use another metric."
        )
    require_reachable(spec, references, told, tokenizer, whole)
