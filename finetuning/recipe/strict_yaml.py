"""YAML files read strictly: UTF-8, one mapping, no key twice, and the line of every key kept for messages."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetuning.bounded_yaml import BoundedLoader, require_bounded
from finetuning.recipe.mistakes import KeyPath, Mistake, RecipeError, harmless, shown

MOST_DIGITS = 18  # which 64 bits hold
MOST_BYTES, LONGEST_KEY = 1 << 20, 200
SURROGATE = re.compile(r"[\ud800-\udfff]")


class _Loader(BoundedLoader):
    """A SafeLoader that notes where each key is, which are there twice, and which text a comment cut off."""

    def __init__(self, text: str):
        super().__init__(text)
        self.text = text
        self.lines: dict[KeyPath, int] = {}
        self.mistakes: list[Mistake] = []
        self._noted: set[int] = set()

    def note(self, node: yaml.Node, path: KeyPath = ()) -> None:
        # An alias is the very node that it names: noted once, or a node within itself would never end.
        if id(node) in self._noted:
            return
        self._noted.add(id(node))
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            self._require_sound(node)
            self._note_text(node, path)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.note(item, (*path, index))
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    self._require_sound(key)
                    if len(key.value) > LONGEST_KEY:
                        begun = harmless(key.value)[:40]
                        problem = f"a key of {len(key.value):,} characters, such as no section has: {begun}…"
                        raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                inner = (*path, key.value if isinstance(key, yaml.ScalarNode) else "?")
                self._note_key(key, inner)
                self.note(value, inner)

    def _require_sound(self, node: yaml.ScalarNode) -> None:
        problem = None
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MOST_DIGITS:
            begun = harmless(node.value)[:MOST_DIGITS]
            problem = f"{begun}… is a larger number than any setting takes; quote it if it is text"
        elif SURROGATE.search(node.value):
            problem = "the text has half of a character in it, such as \\ud800; write the whole one"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)

    def _note_key(self, key: yaml.Node, path: KeyPath) -> None:
        line = key.start_mark.line + 1
        if path in self.lines:
            self.mistakes.append(
                Mistake(path, f"the key is there twice; the first is on line {self.lines[path]}", line)
            )
        elif key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            self.mistakes.append(
                Mistake(path, "the key is a number, a date, or true or false for YAML; quote it", line)
            )
        self.lines.setdefault(path, line)

    def _note_text(self, node: yaml.ScalarNode, path: KeyPath) -> None:
        # `system: End with #### and the answer.` is "End with", for YAML.
        rest = self.text[node.end_mark.index :].partition("\n")[0]
        if node.style is None and node.tag == "tag:yaml.org,2002:str" and rest.lstrip().startswith("##"):
            message = (
                f"the text ends before {harmless(rest).strip()[:20]!r}, a comment for YAML; put all of it in quotes"
            )
            self.mistakes.append(Mistake(path, message, node.start_mark.line + 1))


@dataclass(frozen=True)
class Document:
    """What a file holds, the mistakes that only its text shows, and where each key is."""

    data: dict[str, Any]
    mistakes: list[Mistake]
    lines: dict[KeyPath, int]

    def mistake(self, path: KeyPath, message: str) -> Mistake:
        """A mistake on the line of that key, or of the nearest section around it that the file has."""
        there = path
        while there not in self.lines:
            there = there[:-1]
        return Mistake(path, message, self.lines[there])


def read_yaml(path: Path) -> Document:
    """The one mapping in a YAML file. Raises RecipeError if the file cannot be read, or is anything else."""
    text = _read_text(path)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise RecipeError(f"{shown(path)}: the file is empty; a recipe begins with `summary:`")
        require_bounded(node)
        loader.note(node)
        data = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise RecipeError(f"{shown(path)}{_place(error)}: not YAML: {_problem(error)}") from None
    if not isinstance(data, dict):
        raise RecipeError(
            f"{shown(path)}: holds {_kind(data)}, not `key: value` lines; a recipe begins with `summary:`"
        )
    return Document(data, loader.mistakes, loader.lines)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise RecipeError(
                f"{shown(path)}: more than {MOST_BYTES >> 20} MiB, which no recipe has. Name data by its files, and a "
                "chat template by its path."
            )
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        raise RecipeError(f"{shown(path)}:{line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None
    except FileNotFoundError:
        raise RecipeError(f"{shown(path)}: no such file") from None
    except OSError as error:
        raise RecipeError(f"{shown(path)}: cannot be read: {error.strerror}") from None


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}" if mark else ""


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return f"character U+{error.character:04X} is not allowed"
    problem = getattr(error, "problem", None) or str(error)
    return " ".join(problem.replace("'\\t'", "a tab (write spaces)").split())


def _kind(data: Any) -> str:
    return {list: "a list", str: "text"}.get(type(data), f"a single value, {data!r}")
