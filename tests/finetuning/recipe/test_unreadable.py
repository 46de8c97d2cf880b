"""A file that holds no recipe is said in a line too, and all mistakes of a file come at once."""

import pytest

from finetuning.recipe.loading import load_file
from finetuning.recipe.mistakes import RecipeError
from tests.finetuning.recipe.short_recipe import SHORT, mistakes_of, write

# Files that hold no recipe at all: their bytes, and what the message must hold.
UNREADABLE = {
    "empty": (b"", ["short.yaml: the file is empty"]),
    "only comments": (b"# nothing\n", ["short.yaml: the file is empty"]),
    "a list": (b"- a\n", ["short.yaml: holds a list, not `key: value` lines"]),
    "text": (b"hello\n", ["short.yaml: holds text, not"]),
    "a number": (b"12\n", ["short.yaml: holds a single value, 12, not"]),
    "not UTF-8": (b"summary: x\nhub: \xff\n", ["short.yaml:2: byte 0xff is not UTF-8"]),
    "bad syntax": (b"summary: x\nhub: {repo: a\nlora: 1\n", ["short.yaml:3: not YAML: expected ',' or '}'"]),
    "two colons": (b"summary: a: b\n", ["short.yaml:1: not YAML: mapping values are not allowed here"]),
    "a tab": (b"hub:\n\trepo: a\n", ["short.yaml:2: not YAML: found character a tab (write spaces)"]),
    "a control character": (b"summary: \x07\n", ["short.yaml: not YAML: character U+0007 is not allowed"]),
    "a month 13": (b"summary: 2024-13-01\n", ["short.yaml:1: not YAML: this is no !!timestamp: month must be"]),
    "a wrong tag": (b"summary: x\nhub: !!bool maybe\n", ["short.yaml:2: not YAML: this is no !!bool"]),
    "a thousand brackets": (b"[" * 1000, ["short.yaml:1: not YAML: more than 50 levels, one in another"]),
    "two documents": (b"a: 1\n---\nb: 2\n", ["short.yaml:2: not YAML: but found another document"]),
    "an unknown tag": (b"summary: !!python/name:os.system\n", ["short.yaml:1: not YAML: could not determine"]),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_holds_no_recipe_is_one_line_too(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, fragments = UNREADABLE[case]
    path = tmp_path / "short.yaml"
    path.write_bytes(content)
    (line,) = mistakes_of(path)
    assert all(fragment in line for fragment in fragments), line


def test_a_missing_file_and_a_folder_are_errors_that_say_so(tmp_path):
    assert mistakes_of(tmp_path / "none.yaml") == [f"{tmp_path}/none.yaml: no such file"]
    assert mistakes_of(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = tmp_path / "short.yaml"
    path.write_text(SHORT, encoding="utf-8-sig")
    assert load_file(path).summary == "A model that answers"


def test_all_mistakes_of_a_file_come_at_once_in_the_order_of_its_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = """\
summary: Much is wrong
base_model:
  repo: some/model
  atention: [sdpa]
dataset:
  sources:
    - hub: some/data
      format: question-answer
      rows: -3
    - {hub: other/data, format: ultrafeedback}
lora: {r: 8, r: 16}
training:
  packing: true
  learning_rate: 2e-4
  lr_scheduler_type: constant
  warmup_steps: 10
evaluation: {metrics: [final-answer], gate: {exact-match: {}}}
hub: {private: yes}
"""
    lines = [line.partition(": ")[::2] for line in mistakes_of(write(tmp_path, text))]
    assert [(place, line.split(":")[0]) for place, line in lines] == [
        ("short.yaml:4", "base_model.atention"),
        ("short.yaml:9", "dataset.sources[0].rows"),
        ("short.yaml:10", "dataset.sources[1].model"),
        ("short.yaml:11", "lora.r"),
        ("short.yaml:13", "training.packing"),
        ("short.yaml:14", "training.learning_rate"),
        ("short.yaml:16", "training.warmup_steps"),
        ("short.yaml:17", "evaluation.gate"),
        ("short.yaml:18", "hub.repo"),
        ("short.yaml:18", "hub.license"),
    ]


def test_a_recipe_that_is_far_too_large_is_refused_at_once(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text("summary: " + "x" * 30_000_000)
    with pytest.raises(RecipeError, match=r"large\.yaml: more than 1 MiB"):
        load_file(path)
    path.write_text("? " + "k" * 500_000 + "\n: 1\n")
    with pytest.raises(RecipeError, match="a key of 500,000 characters") as error:
        load_file(path)
    assert len(str(error.value)) < 500
