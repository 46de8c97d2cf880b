"""The report: what a person reads of an evaluation, on one page that any Markdown viewer shows."""

import json
from unittest.mock import patch

import pytest

from finetuning.errors import FinetuningError
from finetuning.evaluation.evaluation_report import (
    COLUMN,
    Made,
    beside_published,
    samples,
    side_by_side,
    write_report,
)
from finetuning.evaluation.report import (
    Answering,
    BenchmarkFigures,
    Figures,
    Findings,
    Published,
    PublishedFigures,
    Sample,
    Verdict,
)
from finetuning.evaluation.tables import metrics_table
from finetuning.evaluation.verdict import judge
from finetuning.plots import base_beside_tuned
from finetuning.recipe.evaluation import EvaluationSpec
from finetuning.recipe.recipe import Recipe

METRICS = {
    "final-answer": Figures(base=0.1, tuned=0.6, gain=0.5, interval=(0.4, 0.6), higher_is_better=True),
    "unclear": Figures(base=0.5, tuned=0.52, gain=0.02, interval=(-0.03, 0.07), higher_is_better=False),
    "loss": Figures(base=2.0, tuned=2.5, gain=0.5, interval=(0.4, 0.6), higher_is_better=False),
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
    base_model={
        "source": "microsoft/phi-2",
        "revision": "810d367871c1d460086d9f82db8696f2e0a0fcd0",
        "on_hub": True,
    },
    sources=[
        {
            "stem": "train-00",
            "split": "train",
            "source": "openai/gsm8k",
            "revision": "740312add88f",
            "rows": 7000,
            "unreadable": 0,
        }
    ],
    chat={
        "train_rows": 6600,
        "eval_rows": 350,
        "supervised_tokens": 90000,
        "dropped": [{"reason": "longer than chat.max_length", "rows": 50, "example": "train-00.parquet:17"}],
    },
)
TOOK = Answering(tokens=100, seconds=2.0, tokens_per_second=50.0, peak_memory_mb=900)


def recipe_of(name, summary):
    sections = {"base_model": {"repo": "microsoft/phi-2"}, "dataset": {"sources": [{"hub": "openai/gsm8k"}]}}
    hub = {"repo": "phi-2-maths", "license": "mit"}
    return Recipe.model_validate({"name": name, "summary": summary, **sections, "hub": hub})


def row(place, base_score, tuned_score, **texts):
    texts = {"question": "2 + 3?", "reference": "5", "base": "six", "tuned": "5", **texts}
    return Sample(place=place, base_score=base_score, tuned_score=tuned_score, **texts)


@pytest.fixture
def written(tmp_path):
    rows = [row("a", 0.0, 1.0), row("b", 1.0, 0.0, tuned="seven"), row("c", 0.0, 0.0), row("d", 1.0, 1.0)]
    found = Findings(4, METRICS, rows, answering={"base": TOOK, "tuned": TOOK})
    verdict = Verdict(passed=False, reasons=("gain in final-answer is 0.500, which misses by 0.100",))
    write_report(tmp_path, recipe_of("phi-2", "Phi-2 solves maths"), MADE, found, verdict)
    return tmp_path


def test_the_page_says_what_was_found_and_how_it_came_to_be(written):
    page = (written / "report.md").read_text()
    assert "**Failed**: will not be published." in page and "misses by 0.100" in page
    for part in (
        "| final-answer | 10.0% | 60.0% | +50.00 points | +40.00 to +60.00 | better |",
        "openai/gsm8k | 740312add88f | 7000 | train",
        "longer than chat.max_length | 50 | train-00.parquet:17",
        "microsoft/phi-2 at `810d367871c1d460086d9f82db8696f2e0a0fcd0`",
        "5,000 tokens in 12 s (406 tokens/s) on cpu with sdpa, at most 1,466 MiB",
        "learning_rate: 0.001",
        "peft 0.21.2, torch 2.13.0",
        "So many rows show a gain in final-answer of 15 points or more, in four of five exams",
    ):
        assert part in " ".join(page.replace("|", " | ").split()).replace("| |", "|"), part


@pytest.mark.parametrize("kind", ["metrics", "benchmarks", "no_worse_than_published"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_no_finite_number_is_said_before_anything_is_written(tmp_path, kind, value):
    wrong = {"tuned": value, "gain": value, "interval": (-1.0, 1.0), "higher_is_better": True}
    benchmark = BenchmarkFigures(base=0.4, metric="acc", rows=9, standard_errors=(0.1, 0.1), **wrong)
    known = {"repo_id": "lab/maths", "tag": "d" * 16, "commit": "e" * 40, "adapter": "f" * 16}
    beside = Published(**known, metrics={"chrf": PublishedFigures(published=0.5, **wrong)})
    found = {
        "metrics": Findings(4, METRICS | {"chrf": Figures(base=0.4, **wrong)}, []),
        "benchmarks": Findings(4, METRICS, [], benchmarks={"arc": benchmark}),
        "no_worse_than_published": Findings(4, METRICS, [], published=beside),
    }[kind]
    with pytest.raises(FinetuningError, match=rf"evaluation\.{kind}: (chrf|arc) is no finite number \(tuned {value}, "):
        write_report(tmp_path, recipe_of("phi-2", "Maths"), MADE, found, Verdict(passed=False))
    assert not list(tmp_path.iterdir())


def test_every_file_that_the_page_shows_is_beside_it(written):
    page = (written / "report.md").read_text()
    assert "(metrics.png)" in page and "(loss.png)" in page
    assert all((written / name).read_bytes().startswith(b"\x89PNG") for name in ("metrics.png", "loss.png"))


def test_the_version_that_is_published_now_is_on_the_page():
    known = {"repo_id": "lab/maths", "tag": "d" * 16, "commit": "e" * 40, "adapter": "f" * 16}
    figures = PublishedFigures(published=0.5, tuned=0.6, gain=0.1, interval=(0.02, 0.18), higher_is_better=True)
    page = "\n".join(beside_published(Published(**known, metrics={"final-answer": figures})))
    assert f"Version `{'d' * 16}` of lab/maths." in page
    assert "| final-answer | 50.0% " in " ".join(page.split()) and "published" in page
    assert beside_published(Published(**known, why="it has another chat_template"))[-1] == (
        "It was not compared: it has another chat_template."
    )
    assert beside_published(None) == []


def test_programs_find_the_numbers_that_the_page_has(written):
    report = json.loads((written / "report.json").read_text())
    assert report["adapter"] == "a" * 16 and report["rows"] == 4
    assert report["metrics"]["final-answer"] == {
        "base": 0.1,
        "tuned": 0.6,
        "gain": 0.5,
        "interval": [0.4, 0.6],
        "higher_is_better": True,
    }
    assert report["metrics"].keys() == METRICS.keys()
    assert report["verdict"].keys() == {"passed", "reasons"} and report["published"] is None
    assert report["verdict"]["passed"] is False
    assert report["answering"]["tuned"]["tokens_per_second"] == 50.0


def test_a_gain_above_zero_is_one_for_the_better_in_whichever_words():
    for name, less_is_better in (("final-answer", False), ("unclear", True), ("loss", True)):
        sign = -1 if less_is_better else 1
        found = Figures(
            base=0.5,
            tuned=0.5 + sign * 0.25,
            gain=sign * 0.25,
            interval=(sign * 0.25 - 0.0625, sign * 0.25 + 0.0625),
            higher_is_better=not less_is_better,
        )
        (line,) = metrics_table({name: found}).to_dict("records")
        scale, unit = (1, "") if name == "loss" else (100, " points")
        assert line["gain"] == f"{0.25 * scale:+.2f}{unit}"
        assert line["95 % interval"] == f"{0.1875 * scale:+.2f} to {0.3125 * scale:+.2f}"
        assert line["change"] == "better"
        (reason,) = judge(EvaluationSpec(metrics=(name,)), 128, {name: found}).reasons
        assert reason.startswith(f"{name} is better than the base beyond its noise: gain +0.250, 95 % interval +0.1")


def test_no_whisker_ends_beyond_what_a_share_can_be():
    wide = {"base": 0.5, "gain": 0.45, "interval": (-0.6, 0.7), "higher_is_better": True}
    drawn = []
    with patch("matplotlib.axes.Axes.errorbar", lambda axes, x, y, error, **_: drawn.append((y, error))):
        base_beside_tuned({"final-answer": Figures(tuned=0.95, **wide), "loss": Figures(tuned=0.95, **wide)})
    (share, ((below,), (above,))), (_, (_, (free,))) = drawn
    assert (share - below, share + above) == pytest.approx((0.0, 1.0)) and free == pytest.approx(0.25)


def test_shares_are_percentages_and_losses_are_not():
    table = metrics_table(METRICS).set_index("metric")
    assert list(table["change"]) == ["better", "noise", "worse"]
    assert table.loc["unclear (less is better)", "gain"] == "-2.00 points"
    assert tuple(table.loc["loss (less is better)", ["base", "gain", "95 % interval"]]) == (
        "2.000",
        "-0.50",
        "-0.60 to -0.40",
    )


def test_benchmarks_are_on_the_page_with_their_errors(tmp_path):
    arc = {"metric": "acc", "rows": 2376, "base": 0.412, "tuned": 0.34, "gain": -0.072, "interval": [-0.1, -0.04]}
    arc |= {"standard_errors": [0.01, 0.011], "higher_is_better": True}
    text = {**arc, "metric": "word_perplexity", "base": 20.0, "tuned": 21.0, "gain": 1.0, "interval": [-0.5, 2.5]}
    found = {"arc_easy": arc, "wikitext": {**text, "higher_is_better": False}}
    figures = {name: BenchmarkFigures(**one) for name, one in found.items()}
    findings = Findings(1, METRICS, [row("a", 0.0, 1.0)], benchmarks=figures, answering={"base": TOOK})
    write_report(tmp_path, recipe_of("phi-2", "Maths"), MADE, findings, Verdict(passed=False))
    assert json.loads((tmp_path / "report.json").read_text())["benchmarks"] == found
    page = (tmp_path / "report.md").read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.split("## Benchmarks")[1].splitlines()]
    change = ["-0.07", "-0.10 to -0.04", "worse"]
    assert ["arc_easy", "acc", "2,376", "0.412 ± 0.010", "0.340 ± 0.011", *change] in cells
    text = next(line for line in cells if line[:1] == ["wikitext"])
    assert text[1] == "word_perplexity (less is better)" and text[-3:] == ["-1.00", "-2.50 to +0.50", "noise"]


def test_a_report_without_benchmarks_does_not_speak_of_them(written):
    assert "## Benchmarks" not in (written / "report.md").read_text()
    assert json.loads((written / "report.json").read_text())["benchmarks"] == {}


def asked(name, base_score, tuned_score):
    """A row whose question is its name."""
    return row(name, base_score, tuned_score, question=name)


def test_samples_are_those_that_changed_most_and_those_still_wrong():
    rows = [asked("AA", 0.2, 0.3), asked("BB", 0.1, 0.9), asked("CC", 0.9, 0.5), asked("DD", 0.4, 0.4)]
    better, worse, wrong = samples([*rows, asked("EE", 1.0, 1.0)])
    assert better.startswith("### Got better: 2 of 5") and better.index("BB") < better.index("AA")
    assert worse.startswith("### Got worse: 1 of 5") and "CC" in worse
    assert wrong.startswith("### Stayed wrong: 1 of 5") and "DD" in wrong


def test_as_many_samples_are_shown_as_the_recipe_allows_and_always_counted():
    rows = [asked(name, 0.0, 0.0) for name in ("AA", "BB", "CC")]
    shown = "".join(samples(rows, shown=2))
    assert "### Stayed wrong: 3 of 3" in shown and "AA" in shown and "BB" in shown and "CC" not in shown
    hidden = "".join(samples(rows, shown=0))
    assert "### Stayed wrong: 3 of 3" in hidden and "`evaluation.samples: 0`" in hidden
    assert not any(name in hidden for name in ("AA", "BB", "CC", "2 + 3"))


def test_a_page_that_is_published_names_no_folder_and_repeats_no_word_of_a_dropped_row(tmp_path):
    made = MADE._replace(
        base_model={"source": "/home/me/models/llama", "revision": "0" * 16, "on_hub": False},
        sources=[
            {
                "stem": "train-00",
                "split": "train",
                "source": "/home/me/talks/*.jsonl, s3://bucket/more.jsonl",
                "revision": "sha256:00",
                "rows": 9,
            }
        ],
        chat={
            **MADE.chat,
            "dropped": [
                {"reason": "unknown role 'a word'", "rows": 2, "example": "/home/me/talks/one.jsonl:3"},
                {"reason": "unknown role 'other'", "rows": 3, "example": "/home/me/talks/two.jsonl:1"},
                {
                    "reason": "the chat template refuses it: no a word here",
                    "rows": 1,
                    "example": "s3://bucket/more.jsonl:7",
                },
            ],
        },
    )
    found = Findings(4, METRICS, [], answering={"base": TOOK, "tuned": TOOK})
    write_report(tmp_path, recipe_of("llama", "Talks"), made, found, Verdict(passed=True, reasons=("so it is",)))
    page = " ".join((tmp_path / "report.md").read_text().split())
    assert "home" not in page and "a word" not in page and "other'" not in page
    assert "for llama at `0000" in page and "*.jsonl, s3://bucket/more.jsonl" in page
    assert "| unknown role … | 5 | one.jsonl:3 |" in page
    assert "| the chat template refuses it | 1 | s3://bucket/more.jsonl:7 |" in page


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
