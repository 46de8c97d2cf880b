"""The Hub's libraries read its address when they are first imported: an asset connects to the source hub before."""

import ast
from pathlib import Path

import pytest

ASSETS = Path(__file__).resolve().parents[2] / "assets"
LIBRARIES = {"datasets", "huggingface_hub", "peft", "transformers", "trl"}


def imported(node: ast.AST) -> set[str]:
    """The packages that a statement imports."""
    if isinstance(node, ast.ImportFrom):
        return {str(node.module).split(".")[0]}
    return {alias.name.split(".")[0] for alias in node.names} if isinstance(node, ast.Import) else set()


def connections(function: ast.AST) -> list[int]:
    """The lines in which it connects to the hub that is read from."""
    return [node.lineno for node in ast.walk(function) if getattr(node, "attr", None) == "connect_source"]


@pytest.mark.parametrize("path", sorted(ASSETS.glob("*.py")), ids=lambda path: path.stem)
def test_no_library_is_imported_before_the_source_hub_is_reached(path):
    tree = ast.parse(path.read_text())
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for line in connections(function)[:1]:
            early = [node.lineno for node in ast.walk(function) if imported(node) & LIBRARIES and node.lineno < line]
            assert early == [], f"{path.name}: line {early[0]} imports what reads the hub's address, before line {line}"
    assert not any(imported(node) & LIBRARIES for node in tree.body)


def test_assets_that_read_from_the_hub_are_among_them():
    assert len([path for path in ASSETS.glob("*.py") if connections(ast.parse(path.read_text()))]) >= 2
