"""What pages say of an adapter that is several others as one: which these are, and what they learned from."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from finetuning.public_names import public_source

COLUMNS = ("revision", "split", "rows")


def merged_from(merge: Mapping[str, Any]) -> list[str]:
    """Each adapter that was merged, in words: its weight, recipe, version and licence."""
    return [
        f"{part['weight']:g} of the adapter of the recipe {part['recipe']} at `{part['revision']}` "
        f"(licence: {part['license']})"
        for part in merge["parts"]
    ]


def merge_lines(merge: Mapping[str, Any]) -> dict[str, str]:
    """The lines of a card's table on what was merged."""
    return {f"part {number}": words for number, words in enumerate(merged_from(merge), 1)}


def merged_data(merge: Mapping[str, Any], own: Sequence[Mapping[str, Any]], eval_rows: int) -> list[str]:
    """The parts of a page on what the adapters learned from, and on the sources (`own`) of the exam's rows."""
    learned = [
        {"adapter": part["recipe"], "source": public_source(record)} | {key: record[key] for key in COLUMNS}
        for part in merge["parts"]
        for record in part["data"]
    ]
    examined = [{"source": public_source(record)} | {key: record[key] for key in COLUMNS} for record in own]
    return [
        "What the adapters that were merged learned from:",
        pd.DataFrame(learned).to_markdown(index=False, disable_numparse=True),
        f"What the {eval_rows:,} rows kept for evaluation are from:",
        pd.DataFrame(examined).to_markdown(index=False, disable_numparse=True),
    ]
