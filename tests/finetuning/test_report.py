"""The report: what a person reads of an evaluation, on one page that any Markdown viewer shows."""

import json

import pytest

from finetuning.report import COLUMN, Made, beside_published, metrics_table, samples, side_by_side, write_report

METRICS = {
    "final-answer": {"base": 0.1, "tuned": 0.6, "gain": 0.5, "interval": [0.4, 0.6], "higher_is_better": True},
    "unclear": {"base": 0.5, "tuned": 0.52, "gain": 0.02, "interval": [-0.03, 0.07], "higher_is_better": False},
    "loss": {"base": 2.0, "tuned": 2.5, "gain": 0.5, "interval": [0.4, 0.6], "higher_is_better": False},
}
MADE = Made(
    adapter="a" * 16,
    files={"adapter_model.safetensors": "b" * 64},
    alike={"base_model": "c" * 16, "chat_template": "chatml"},
    training={
        "trainable_parameters": 1234,
        "steps": 20,
        "tokens": 5000,
        "training_seconds": 12.3,
        "tokens_per_second": 406.5,
        "device": "cpu",
        "attention": "sdpa",
        "peak_memory_mb": 1466,
        "train_loss": 0.337,
        "eval_loss": 0.089,
        "curve": [{"step": 10, "loss": 1.6}, {"step": 20, "loss": 0.4}],
        "eval_curve": [],
    },
    settings={"lora": {"r": 16}, "training": {"learning_rate": 0.001}},
    versions={"torch": "2.13.0", "peft": "0.21.2"},
    base_model={"source": "microsoft/phi-2", "revision": "810d367871c1d460086d9f82db8696f2e0a0fcd0"},
    sources=[{"source": "openai/gsm8k", "revision": "740312add88f", "rows": 7000, "unreadable": 0}],
    chat={
        "train_rows": 6600,
        "eval_rows": 350,
        "supervised_tokens": 90000,
        "dropped": [{"reason": "longer than chat.max_length", "rows": 50, "example": "train-00.parquet:17"}],
    },
)
TOOK = {"tokens": 100, "seconds": 2.0, "tokens_per_second": 50.0, "peak_memory_mb": 900}


def row(place, base_score, tuned_score, **texts):
    texts = {"question": "2 + 3?", "reference": "5", "base": "six", "tuned": "5", **texts}
    return {"place": place, "base_score": base_score, "tuned_score": tuned_score, **texts}


@pytest.fixture
def written(tmp_path):
    rows = [row("a", 0.0, 1.0), row("b", 1.0, 0.0, tuned="seven"), row("c", 0.0, 0.0), row("d", 1.0, 1.0)]
    found = {"rows": 4, "metrics": METRICS, "samples": rows, "answering": {"base": TOOK, "tuned": TOOK}}
    found |= {"published": None}
    verdict = {"passed": False, "reasons": ["gain in final-answer is 0.500, which misses by 0.100"]}
    write_report(tmp_path, "phi-2", "Phi-2 solves maths", MADE, found, verdict)
    return tmp_path


def test_the_page_says_what_was_found_and_how_it_came_to_be(written):
    page = (written / "report.md").read_text()
    assert "**Failed**: will not be published." in page and "misses by 0.100" in page
    for part in (
        "| final-answer | 10.0% | 60.0% | +50.0 points | +40.0 to +60.0 | better |",
        "openai/gsm8k | 740312add88f | 7000",
        "longer than chat.max_length | 50 | train-00.parquet:17",
        "microsoft/phi-2 at `810d367871c1d460086d9f82db8696f2e0a0fcd0`",
        "5,000 tokens in 12 s (406 tokens/s) on cpu with sdpa, at most 1,466 MiB",
        "learning_rate: 0.001",
        "peft 0.21.2, torch 2.13.0",
        "rows the intervals themselves are rough",
    ):
        assert part in " ".join(page.replace("|", " | ").split()).replace("| |", "|"), part


def test_every_file_that_the_page_shows_is_beside_it(written):
    page = (written / "report.md").read_text()
    assert "(metrics.png)" in page and "(loss.png)" in page
    assert all((written / name).read_bytes().startswith(b"\x89PNG") for name in ("metrics.png", "loss.png"))


def test_the_version_that_is_published_now_is_on_the_page():
    known = {"repo_id": "lab/maths", "tag": "d" * 16}
    figures = {"published": 0.5, "tuned": 0.6, "gain": 0.1, "interval": [0.02, 0.18], "higher_is_better": True}
    page = "\n".join(beside_published(known | {"metrics": {"final-answer": figures}}))
    assert f"Version `{'d' * 16}` of lab/maths." in page
    assert "| final-answer | 50.0% " in " ".join(page.split()) and "published" in page
    assert beside_published(known | {"why": "it has another chat_template"})[-1] == (
        "It was not compared: it has another chat_template."
    )
    assert beside_published(None) == []


def test_programs_find_the_numbers_that_the_page_has(written):
    report = json.loads((written / "report.json").read_text())
    assert report["adapter"] == "a" * 16 and report["rows"] == 4
    assert report["metrics"] == METRICS
    assert report["verdict"]["passed"] is False
    assert report["answering"]["tuned"]["tokens_per_second"] == 50.0


def test_shares_are_percentages_and_losses_are_not():
    table = metrics_table(METRICS).set_index("metric")
    assert list(table["change"]) == ["better", "noise", "worse"]
    assert table.loc["unclear (less is better)", "gain"] == "+2.0 points"
    assert tuple(table.loc["loss (less is better)", ["base", "gain", "95 % interval"]]) == (
        "2.000",
        "+0.500",
        "+0.400 to +0.600",
    )


def asked(name, base_score, tuned_score):
    """A row whose question is its name."""
    return row(name, base_score, tuned_score, question=name)


def test_samples_are_those_that_changed_most_and_those_still_wrong():
    rows = [asked("AA", 0.2, 0.3), asked("BB", 0.1, 0.9), asked("CC", 0.9, 0.5), asked("DD", 0.4, 0.4)]
    better, worse, wrong = samples([*rows, asked("EE", 1.0, 1.0)])
    assert better.startswith("### Got better: 2 of 5") and better.index("BB") < better.index("AA")
    assert worse.startswith("### Got worse: 1 of 5") and "CC" in worse
    assert wrong.startswith("### Stayed wrong: 1 of 5") and "DD" in wrong


def test_of_a_loss_a_lower_one_got_better():
    rows = [asked("AA", 2.0, 1.0), asked("BB", 1.0, 2.0), asked("CC", 1.0, 1.0), asked("DD", 0.0, 0.0)]
    better, worse, wrong = samples(rows, less_is_better=True)
    assert "AA" in better and "BB" in worse
    assert wrong.startswith("### Stayed wrong: 1 of 4") and "CC" in wrong


def test_answers_stand_side_by_side_whatever_is_in_them():
    text = side_by_side(("BASE", "word " * 40 + "\n```\n# not a title"), ("TUNED", ""))
    lines = text.splitlines()
    assert all(line[COLUMN : COLUMN + 2] == " |" for line in lines)
    assert lines[0].split() == ["BASE", "|", "TUNED"]
    assert "(empty)" in lines[2] and any("# not a title" in line for line in lines)
