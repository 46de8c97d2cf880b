"""The main line through its public command, on a tiny model: reuse, and rebuilds of what changed."""

import json
import re

import pytest

from tests.benchmark_folder import write_tasks
from tests.pipelines.command import IN_PROCESS, World
from tests.pipelines.main_line import ASSETS, REUSED, changed, commits


@pytest.fixture(scope="module")
def through_the_line():
    return World.materialize


def test_one_command_takes_a_recipe_through_all_six_assets(world):
    found = world.artifacts("tiny")
    assert set(found) == ASSETS
    adapter = found["lora_adapter"]
    assert adapter["inputs"] == {name: found[name]["fingerprint"] for name in ("chat_dataset", "quantized_base_model")}
    report = json.loads((world.folder("evaluation_report", "tiny") / "report.json").read_text())
    assert report["adapter"] == adapter["fingerprint"]
    assert report["verdict"]["passed"] is True


def test_a_run_of_one_recipe_leaves_out_what_is_of_all_of_them(world):
    why = "it is of all recipes, and this run of one: dg launch --assets leaderboard"
    assert f"skipped: leaderboard: {why}" in (world.root / "first.log").read_text()
    assert not (world.root / "artifacts" / "leaderboard").exists()


def test_the_memory_of_training_is_predicted_and_with_it_whether_activations_are_kept(world):
    summary, said = world.artifacts("tiny")["lora_adapter"]["summary"], (world.root / "first.log").read_text()
    assert f"memory: {summary['predicted_memory_mb']:,} MiB at its peak (" in said
    assert "training.activation_checkpointing: false, as it fits without" in said
    assert summary["activation_checkpointing"] is False
    assert summary["peak_memory_mb"] == pytest.approx(summary["predicted_memory_mb"], rel=0.15)


def test_the_terminal_shows_what_the_steps_say_and_the_compute_logs_have_everything(world):
    said, everything = (world.root / "first.log").read_text(), world.compute_logs()
    assert "dagster - INFO" in said and "loading libraries" in said
    for noise in ("Failed to load CPU gemm", "FutureWarning", "PreviewWarning", "BetaWarning", "'train_runtime'"):
        assert noise not in said
    # What bitsandbytes says of a kernel, it says on CPUs with AVX512-BF16 alone.
    assert "FutureWarning" in everything and "'train_runtime'" in everything
    assert set(re.findall(r"^.* - dagster - INFO - .* - (?:step|tuned).*$", said, re.MULTILINE)) <= {
        *everything.splitlines()
    }


def test_an_adapter_that_is_there_is_shown_without_torch(world):
    command = ["dagster", "asset", "materialize", "-m", "pipelines.definitions", "--select", "lora_adapter"]
    shown = world.python("-X", "importtime", "-m", *command, "--partition", "tiny", "--config-json", IN_PROCESS)
    assert shown.returncode == 0 and ": reused," in shown.stdout, shown.stdout[-4000:]
    imported = set(re.findall(r"\|\s+([\w.]+)$", shown.stdout + world.compute_logs(), re.MULTILINE))
    assert "matplotlib" in imported and not imported & {"torch", "transformers", "peft", "bitsandbytes"}


def test_a_second_run_reuses_everything_and_makes_no_commit(world):
    before, history = world.artifacts("tiny"), commits(world, "local/tiny-adapter")
    again = world.materialize_warm("tiny")
    assert again.returncode == 0, again.stdout[-4000:]
    assert len(re.findall(REUSED, again.stdout)) == 6
    assert world.artifacts("tiny") == before
    assert commits(world, "local/tiny-adapter") == history and len(history) == 2


def test_the_result_table_names_report_and_commit(world):
    shown = world.results("tiny")
    published = world.artifacts("tiny")["published_repo"]["summary"]
    assert shown.returncode == 0
    assert "exact-match" in shown.stdout and "report.md" in shown.stdout
    assert f"local/tiny-adapter at commit {published['commit']}" in shown.stdout


EDITS = [
    ("hub", {"license": "mit"}, {"published_repo"}),
    ("evaluation", {"max_new_tokens": 63}, {"evaluation_report", "published_repo"}),
    ("lora", {"r": 2}, {"lora_adapter", "evaluation_report", "published_repo"}),
    ("dataset", {"dedup": "exact"}, ASSETS - {"raw_dataset", "quantized_base_model"}),
    ("dataset", {"seed": 7}, ASSETS - {"quantized_base_model"}),
]


@pytest.mark.long("five runs of the whole line")
def test_editing_one_section_rebuilds_exactly_what_depends_on_it(world, recipe):
    for section, keys, rebuilt in EDITS:
        before, recipe = world.artifacts("tiny"), changed(recipe, section, **keys)
        world.write_recipe("tiny", recipe)
        run = world.materialize_warm("tiny")
        assert run.returncode == 0, run.stdout[-4000:]
        after = world.artifacts("tiny")
        assert {name for name in ASSETS if after[name] != before[name]} == rebuilt, section
        assert len(re.findall(REUSED, run.stdout)) == len(ASSETS) - len(rebuilt), section


def answers_of_bases(world: World) -> list[str]:
    """Where answers of base models lie."""
    return sorted(str(path.parent) for path in (world.root / "artifacts" / "base_answers").glob("*/*/artifact.json"))


@pytest.mark.long("three trainings")
def test_the_base_answers_once_for_all_of_its_adapters(world, recipe):
    world.write_recipe("elder", changed(recipe, "hub", repo="elder-adapter"))
    assert world.materialize_warm("elder", select=",".join(ASSETS - {"published_repo"})).returncode == 0
    there = answers_of_bases(world)
    world.write_recipe("younger", changed(changed(recipe, "lora", r=5), "hub", repo="younger-adapter"))
    run = world.materialize_warm("younger", select=",".join(ASSETS - {"published_repo"}))
    assert run.returncode == 0, run.stdout[-4000:]
    assert re.search(r"base_answers [0-9a-f]{16}: reused,", run.stdout)
    assert answers_of_bases(world) == there
    elder, younger = (
        json.loads((world.folder("evaluation_report", name) / "report.json").read_text())
        for name in ("elder", "younger")
    )
    assert elder["adapter"] != younger["adapter"]
    assert elder["answering"]["base"] == younger["answering"]["base"]
    compared = world.python("-m", "pipelines.compare", "elder", f"younger@{younger['adapter'][:6]}")
    assert compared.returncode == 0, compared.stdout
    assert "| lora.r | 4 | 5 |" in compared.stdout and "| hub.repo" not in compared.stdout
    assert "rows that both were asked" in compared.stdout and "| evaluation." not in compared.stdout
    command = ["dagster", "asset", "materialize", "-m", "pipelines.definitions", "--select", "leaderboard"]
    board = world.warm("-m", *command, "--config-json", IN_PROCESS)
    assert board.returncode == 0, board.stdout[-4000:]
    assert re.search(r"leaderboard [0-9a-f]{16}: written,", board.stdout)
    (page,) = (world.root / "artifacts" / "leaderboard" / "all").glob("*/leaderboard.md")
    groups = json.loads((page.parent / "leaderboard.json").read_text())["groups"]
    assert any({"elder", "younger"} <= {one["name"] for one in group["models"]} for group in groups)
    assert list((page.parent / "beside").glob("*er.md")) and "lora.r" in page.read_text()
    strange = world.python("-m", "pipelines.compare", "elder", "younger@0000")
    assert strange.returncode == 4 and f"of adapter {younger['adapter']}" in strange.stdout
    world.write_recipe("younger", changed(recipe, "evaluation", max_new_tokens=3))
    assert world.materialize_warm("younger", select="lora_adapter,evaluation_report").returncode == 0
    assert len(answers_of_bases(world)) == len(there) + 1


@pytest.mark.long("two trainings, and benchmarks")
def test_benchmarks_are_looked_up_first_and_asked_once_of_a_base(world, recipe):
    asked = {
        "benchmarks": ["animals", "sums"],
        "benchmark_folder": str(world.root / "tasks"),
        "max_benchmark_fall": 1.0,
    }
    # Rows enough for the rules of two benchmarks beside the others.
    recipe = changed(changed(recipe, "evaluation", **asked, rows=8), "dataset", eval={"fraction": 0.34})
    world.write_recipe("asked", recipe)
    wrong = world.materialize_warm("asked", select="raw_dataset")
    assert wrong.returncode == 1 and "asked.yaml: evaluation.benchmark_folder:" in wrong.stdout
    assert not world.artifacts("asked")
    write_tasks(world.root / "tasks")
    first = world.materialize_warm("asked", select=",".join(ASSETS - {"published_repo"}))
    assert first.returncode == 0, first.stdout[-4000:]
    assert re.search(r"base_benchmarks [0-9a-f]{16}: written,", first.stdout)
    report = json.loads((world.folder("evaluation_report", "asked") / "report.json").read_text())
    assert report["benchmarks"].keys() == {"animals", "sums"}
    assert {reason.split()[0] for reason in report["verdict"]["reasons"]} >= {"animals", "sums"}
    page = (world.folder("evaluation_report", "asked") / "report.md").read_text()
    assert re.search(r"\| animals +\| acc +\| 12 ", page)
    world.write_recipe("asked", changed(recipe, "lora", r=5))
    again = world.materialize_warm("asked", select="lora_adapter,evaluation_report")
    assert again.returncode == 0 and re.search(r"base_benchmarks [0-9a-f]{16}: reused,", again.stdout)
    (world.root / "tasks" / "sums.jsonl").write_text('{"question": "What is 1 + 1?", "answer": "2"}\n')
    edited = world.materialize_warm("asked", select="evaluation_report")
    assert edited.returncode == 0 and re.search(r"base_benchmarks [0-9a-f]{16}: written,", edited.stdout)
