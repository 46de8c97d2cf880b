"""Rows of some formats, and the format that is recognised in a row, or what is said where there is none."""

import pytest

from finetuning.dataset.format_recognition import recognise
from finetuning.errors import FinetuningError
from finetuning.recipe.source import SourceSpec

WHERE = "recipes/x.yaml: dataset.sources[0]"
ROLES = [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]
FROMS = [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]
ANSWERS = [{"model": "gpt-4", "response": "5"}, {"model": "bard", "response": "6"}]


def source(**keys) -> SourceSpec:
    return SourceSpec(files=["x.jsonl"], **keys)


def recognised(row, **keys) -> str:
    return recognise(list(row), row, source(**keys), WHERE)


def mistake(row, **keys) -> str:
    with pytest.raises(FinetuningError) as error:
        recognised(row, **keys)
    return str(error.value)
