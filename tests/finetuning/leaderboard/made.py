"""Exams of models whose scores a test decides."""

import numpy as np
import pandas as pd

from finetuning.evaluation.report import Answering, Figures, Report, Verdict
from finetuning.evaluation.side_by_side import Examined
from finetuning.leaderboard.document import Costs
from finetuning.leaderboard.entrants import Entrant
from finetuning.recipe.evaluation import LESS_IS_BETTER

TOOK = Answering(tokens=100, seconds=2.0, tokens_per_second=50.0, peak_memory_mb=900)
ASKED = {"max_new_tokens": 256, "batch_size": 32}


def report(scores, metric="exact-match", context=None, passed=True) -> Report:
    figure = float(np.mean(scores))
    higher = metric not in LESS_IS_BETTER
    figures = Figures(base=0.0, tuned=figure, gain=figure, interval=(0.0, 1.0), higher_is_better=higher)
    return Report(
        adapter="0" * 16,
        verdict=Verdict(passed=passed),
        rows=len(scores),
        metrics={metric: figures},
        answering={"base": TOOK, "tuned": TOOK},
        context=context,
    )


def samples(name, scores, questions=None, supervised=None) -> pd.DataFrame:
    rows = {
        "place": [f"rows.jsonl:{row + 1}" for row in range(len(scores))],
        "question": questions or [f"question {row}" for row in range(len(scores))],
        "reference": ["5"] * len(scores),
        "tuned": [f"{name} says {score}" for score in scores],
        "tuned_score": [float(score) for score in scores],
    }
    return pd.DataFrame(rows | ({"supervised": supervised} if supervised else {}))


def entrant(name, scores, metric="exact-match", size=100.0, questions=None, supervised=None, **asked) -> Entrant:
    """An exam with these scores; a `size` of None is one that nobody knows."""
    context = asked.pop("context", None)
    sections = {"evaluation": ASKED | asked, "lora": {"r": len(name)}}
    found = samples(name, scores, questions, supervised)
    examined = Examined(name, sections, {"steps": "3"}, report(scores, metric, context), found)
    costs = Costs(
        base_model=f"lab/{name}",
        parameters=135_000_000,
        size_mb=size,
        training_seconds=1800.0,
        training_device="cpu",
        training_processes=1,
        tokens_per_second=50.0,
        peak_memory_mb=900,
        license="mit",
    )
    return Entrant(examined, "f" * 16, costs)
