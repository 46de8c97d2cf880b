"""Lets base and tuned model sit the same exam, as the asset `evaluation_report` does."""

from pathlib import Path
from typing import Any

from finetuning.evaluation.comparison import evaluate
from finetuning.evaluation.exam import exam_of, sit
from finetuning.progress import Progress
from finetuning.recipe.evaluation import EvaluationSpec

SILENT = Progress(lambda line: None, "")


def examined(spec: EvaluationSpec, root: Path, model_kwargs: dict[str, Any]) -> dict[str, Any]:
    """What `evaluate` says of `root`'s folders chat, base and adapter; the answers are in base-answers and answers."""
    exam = exam_of(spec, root / "chat")
    answering = {}
    for name, adapter, folder in (("base", None, "base-answers"), ("tuned", root / "adapter", "answers")):
        (root / folder).mkdir(exist_ok=True)
        answering[name] = sit(spec, exam, root / "base", adapter, model_kwargs, SILENT, root / folder)
    return evaluate(spec, exam, root / "base-answers", root / "answers") | {"answering": answering, "published": None}
