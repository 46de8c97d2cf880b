"""Lets base and tuned model sit the same exam, as the asset `evaluation_report` does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from finetuning.evaluation.comparison import evaluate
from finetuning.evaluation.exam import Candidate, exam_of, sit
from finetuning.evaluation.report import Findings
from finetuning.progress import Progress
from finetuning.recipe.evaluation import EvaluationSpec

SILENT = Progress(lambda line: None, "")


def examined(spec: EvaluationSpec, root: Path, model_kwargs: dict[str, Any]) -> Findings:
    """Return what `evaluate` says of `root`'s folders chat, base and adapter; they leave base-answers and answers."""
    exam = exam_of(spec, root / "chat")
    answering = {}
    for name, adapter, folder in (("base", None, "base-answers"), ("tuned", root / "adapter", "answers")):
        (root / folder).mkdir(exist_ok=True)
        candidate = Candidate(name, root / "base", adapter, model_kwargs)
        answering[name] = sit(spec, exam, candidate, SILENT, root / folder)
    return replace(evaluate(spec, exam, root / "base-answers", root / "answers"), answering=answering)
