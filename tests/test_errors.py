"""The guide to errors quotes messages that the code has, word for word."""

import ast
import re
from pathlib import Path

import dagster
import dagster_postgres
import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS, DAGSTERS = (ROOT / "docs" / "errors.md").read_text().split("## What Dagster and PostgreSQL say")


def quoted(text: str) -> list[str]:
    """The messages: what stands in the first column of each table."""
    return [row[1] for row in re.finditer(r"^\| `([^`]+)` \|", text, re.MULTILINE)]


def strings(folder: Path) -> str:
    """All strings in the code below a folder, a line each, with `…` for what is filled in."""
    found = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(text.replace("\n", " ") for text in found)


def is_said(message: str, said: str) -> bool:
    """Whether a string has the message; `…` stands for one thing that is filled in, or for any text."""
    pieces = [re.escape(piece) for piece in message.split("…")]
    return re.search("[^\n]*".join(pieces), said) is not None


@pytest.fixture(scope="module")
def ours():
    return "\n".join(strings(ROOT / name) for name in ("finetuning", "resources", "assets", "pipelines"))


@pytest.mark.parametrize("message", quoted(OURS))
def test_a_message_of_the_guide_is_one_of_the_code(ours, message):
    assert is_said(message, ours)


def test_the_guide_has_the_messages_that_matter():
    assert len(quoted(OURS)) > 35


def test_dagsters_messages_are_those_of_the_installed_version():
    said = "".join(
        strings(Path(module.__file__).parent / folder)
        for module, folder in [
            (dagster, "_config"),
            (dagster, "_grpc"),
            (dagster, "_core/execution"),
            (dagster, "_core/storage"),
            (dagster, "_daemon/monitoring"),
            (dagster_postgres, "."),
        ]
    )
    assert not [message for message in quoted(DAGSTERS) if not is_said(message.replace(" …", ""), said)]
