"""The code stays easy to enter: no long file, no function of many parameters, few records without a type."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("assets", "finetuning", "pipelines", "resources")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MOST_LINES, MOST_LINES_OF_THE_RECIPE = 350, 250
MOST_PARAMETERS = 6
# Functions whose parameters others decide: the assets' resources, those of transformers' attention, trl's trainer.
DECIDED_ELSEWHERE = {
    "assets/lora_adapter.py": {"lora_adapter"},
    "finetuning/base_model/varlen.py": {"attend", "by_kernel", "row_by_row"},
    "finetuning/training/trainer.py": {"__init__"},
    "finetuning/reinforcement/group_trainer.py": {"_get_per_token_logps_and_entropies"},
    "assets/variants.py": {"variants"},
}
MOST_UNTYPED = 3  # in 1,000 lines


def lines(path: Path) -> int:
    return path.read_text().count("\n")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_long(path):
    within = path.is_relative_to(ROOT / "finetuning" / "recipe")
    assert lines(path) <= (MOST_LINES_OF_THE_RECIPE if within else MOST_LINES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_has_many_parameters(path):
    free = DECIDED_ELSEWHERE.get(path.relative_to(ROOT).as_posix(), ())
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in free:
            given = node.args
            names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            assert len([name for name in names if name not in ("self", "cls")]) <= MOST_PARAMETERS, node.name


def test_few_records_have_no_type():
    counted = [path for path in FILES if not path.is_relative_to(ROOT / "pipelines")]
    untyped = sum(path.read_text().count("dict[str, Any]") for path in counted)
    assert untyped <= MOST_UNTYPED * sum(map(lines, counted)) / 1000
