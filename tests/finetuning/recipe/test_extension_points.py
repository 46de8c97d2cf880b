"""A new format or metric is named in two files and tested in a third: what was forgotten is named here."""

import json
from pathlib import Path
from typing import get_args

import pytest

from finetuning.dataset.format_recognition import recognise
from finetuning.dataset.formats import FORMATS, to_messages
from finetuning.dataset.unread import unread_in
from finetuning.evaluation.metrics import METRICS
from finetuning.recipe.evaluation import LESS_IS_BETTER, UNBOUNDED, EvaluationSpec, GateSpec, Metric
from finetuning.recipe.reference import reference
from finetuning.recipe.source import FORMAT_ROWS, Format, SourceSpec

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("name", sorted({*get_args(Format), *FORMAT_ROWS, *FORMATS}))
def test_a_format_is_named_shown_read_recognised_and_tested(name):
    assert name in get_args(Format), f"{name}: add it to Format in finetuning/recipe/source.py"
    assert name in FORMAT_ROWS, f"{name}: add a row of it to FORMAT_ROWS in finetuning/recipe/source.py"
    assert name in FORMATS, f"{name}: add the function that reads it to FORMATS in finetuning/dataset/formats.py"

    row = json.loads(FORMAT_ROWS[name])
    # Of the formats of today ultrafeedback alone asks which of its answers to take.
    models = [answer["model"] for answer in row.get("completions", [])]
    source = SourceSpec(files=("rows.jsonl",), format=name, model=models[0] if models else None)
    roles = [message["role"] for message in to_messages(row, source)]
    expected = ["text"] if name == "text" else ["user", "assistant"]
    assert roles[-2:] == expected, f"{name}: its function does not read its row in FORMAT_ROWS"
    unnamed = source.model_copy(update={"format": None})
    found = recognise(list(row), row, unnamed, "dataset.sources[0]")
    assert found == name, f"{name}: its row in FORMAT_ROWS is recognised as {found}"
    assert unread_in(row, source, name) == [], f"{name}: its row has columns that it does not read"

    assert f"| `{name}` | `{FORMAT_ROWS[name]}` |" in reference()
    tests = TESTS / "dataset/test_formats.py"
    assert f'"{name}"' in tests.read_text(), f"{name}: no test in {tests.relative_to(TESTS.parents[1])} names it"


@pytest.mark.parametrize("name", sorted({*get_args(Metric), *METRICS}))
def test_a_metric_is_named_explained_computed_and_tested(name):
    assert name in get_args(Metric), f"{name}: add it to Metric in finetuning/recipe/evaluation.py"
    assert name in METRICS, f"{name}: add how it is computed to METRICS in finetuning/evaluation/metrics.py"
    less = not METRICS[name].higher_is_better
    assert (name in LESS_IS_BETTER) == less, f"{name}: LESS_IS_BETTER in finetuning/recipe/evaluation.py disagrees"

    meaning = EvaluationSpec.model_fields["metrics"].description or ""
    assert f"`{name}`" in meaning, f"{name}: say what it is in the description of EvaluationSpec.metrics"
    gain = GateSpec.model_fields["min_gain"].description or ""
    assert f"`{name}`" in gain or not less, f"{name}: less of it is better; say so at GateSpec.min_gain"

    tests = "".join(path.read_text() for path in sorted((TESTS / "evaluation").glob("test_*.py")))
    assert f'"{name}"' in tests, f"{name}: no test in tests/finetuning/evaluation names it"


def test_a_metric_that_is_no_share_is_one_that_there_is():
    assert set(UNBOUNDED) <= set(get_args(Metric))
