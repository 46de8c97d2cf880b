"""The leaderboard as it is written: the page claims no more than is shown, and the document has every number."""

import json

import pytest
from matplotlib.figure import Figure

from finetuning.leaderboard.document import Leaderboard, LeftOut
from finetuning.leaderboard.leaderboard import write_leaderboard
from finetuning.leaderboard.page import choice
from finetuning.plots import scale_sizes
from tests.finetuning.leaderboard.made import entrant


def right(count: int) -> list[float]:
    return [1.0] * count + [0.0] * (40 - count)


def page_of(folder, *entrants, **more) -> str:
    write_leaderboard(folder, entrants, **more)
    return (folder / "leaderboard.md").read_text()


def test_page_document_plot_and_pages_of_pairs_are_written(tmp_path):
    entrants = [entrant("small", right(30), size=50.0), entrant("large", right(36), size=900.0)]
    board = write_leaderboard(tmp_path, [*entrants, entrant("alone", right(3), "contains")])
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"leaderboard.md", "leaderboard.json", "pareto.png", "beside/small.md"}
    assert Leaderboard.of(json.loads((tmp_path / "leaderboard.json").read_text()), "there") == board
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")
    beside = (tmp_path / "beside" / "small.md").read_text()
    assert beside.startswith("# large beside small") and "40 of 40 answers differ" in beside
    page = (tmp_path / "leaderboard.md").read_text()
    assert "3 exams in force, in 2 groups." in page
    assert "| small   | 75.0%" in page and "| 0.50 h on cpu |" in page and "| 135.0 M" in page and "| mit " in page
    assert (
        "![Score against size](pareto.png)" in page
        and f"on 40 rows ({board.groups[0].digest[:6]}), answers of at most 256 tokens" in page
    )
    assert "large and small\n" in page.split("as small and better, by the figures as they are:")[1]
    assert "price" not in page and "lora.r" not in page.split("### Beside large")[0]


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ({"a": 36}, "a alone: there is nothing to compare it with."),
        ({"a": 36, "b": 6}, "**a is better than b**, beyond noise."),
        ({"a": 36, "b": 6, "c": 7}, "**a is better than each of the others**, beyond noise."),
        (
            {"a": 36, "b": 34},
            "**No difference is beyond noise**: any of a and b may be the best. The smallest of them is",
        ),
        (
            {"a": 36, "b": 34, "c": 6},
            "**a and b**: none is shown to beat them. Which of them is the best, these rows do",
        ),
    ],
)
def test_it_names_those_that_nobody_is_shown_to_beat(tmp_path, scores, told):
    entrants = [entrant(name, right(count), size=50.0 * count) for name, count in scores.items()]
    assert told in page_of(tmp_path, *entrants)


def test_one_that_none_beats_and_that_does_not_beat_all_is_not_called_better(tmp_path):
    entrants = [entrant(name, right(count)) for name, count in (("a", 36), ("b", 34), ("c", 6))]
    (group,) = write_leaderboard(tmp_path, entrants).groups
    beaten = [
        one.model_copy(update={"beaten_by": by}) for one, by in zip(group.models, ([], ["a"], ["b"]), strict=True)
    ]
    group = group.model_copy(update={"models": beaten, "unbeaten": ["a"]})
    assert choice(group) == "**a**: none is shown to beat it."


def test_one_exam_alone_is_said_to_be_alone_and_drawn(tmp_path):
    page = page_of(tmp_path, entrant("a", right(36)))
    assert "1 exam in force, in 1 group." in page and "### Beside" not in page
    assert (tmp_path / "pareto.png").exists()


@pytest.mark.parametrize("sizes", [(1.0, 1.0), (97.2, 97.6), (97.2, 140.0), (50.0, 900.0)])
def test_no_size_is_on_the_axis_of_the_plot_twice(sizes):
    figure = Figure()
    axes = figure.subplots()
    axes.margins(x=0.25)
    axes.plot(sizes, (0.1, 0.9), "o")
    scale_sizes(axes, sizes)
    figure.draw_without_rendering()  # which writes the labels
    shown = [text for label in axes.get_xticklabels() if (text := label.get_text())]
    assert shown and len({*shown}) == len(shown)


def test_of_unknown_sizes_there_is_no_plot(tmp_path):
    page = page_of(tmp_path, entrant("a", right(36), size=None), entrant("b", right(35), size=None))
    assert "pareto" not in page and not (tmp_path / "pareto.png").exists()
    assert "may be the best.\n" in page


def test_a_price_is_shown_where_there_is_one(tmp_path):
    one = entrant("a", right(36))
    dear = type(one)(one.examined, one.report, one.costs.model_copy(update={"training_price": 1.25}))
    assert "| price" in (page := page_of(tmp_path, dear)) and "| 1.25 " in page


def test_smoke_runs_and_what_is_left_out_are_said(tmp_path):
    page = page_of(tmp_path, entrant("a", right(36)), left_out=[LeftOut(name="b", why="changed: samples")], smoke=True)
    assert "**Smoke runs**: nothing is proved." in page and "## Left out\n\n- b: changed: samples" in page
