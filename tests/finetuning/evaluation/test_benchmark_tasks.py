"""Names and folders of benchmarks that cannot be run are said before anything is trained."""

import pytest
import yaml

from finetuning.errors import FinetuningError
from finetuning.evaluation.benchmark_tasks import load_benchmarks, require_benchmark_rows, tasks_revision
from finetuning.recipe import benchmark_names
from finetuning.recipe.__main__ import main
from finetuning.recipe.benchmark_names import require_names
from finetuning.recipe.evaluation import EvaluationSpec
from tests.benchmark_folder import write_tasks
from tests.finetuning.evaluation.benchmark_exam import WHERE, spec
from tests.finetuning.test_bounded_yaml import UNREAD

REFUSED = {
    "a name that is like another": (("animls",), r"no task of lm-eval.*'animls'; nearest is animals"),
    "a group without one metric": (("both",), r"both: its tasks have not one metric but acc, exact_match"),
    "code of the model's": (("humaneval_own",), r"humaneval_own runs code that the model wrote"),
    "no mean over rows": (("median",), r"none of its metrics \(acc\) is a mean over rows"),
    "no rows": (("lost",), r"lost: lm-eval cannot load it: FileNotFoundError: .*nowhere\.jsonl"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_run_is_said_before_anything_is_trained(tasks, tmp_path, case):
    write_tasks(tmp_path)
    text = (tasks / "animals.yaml").read_text()
    others = {
        "humaneval_own": text + "unsafe_code: true\n",
        "median": text.replace("mean", "median", 1).replace("  - {metric: acc_norm", "#"),
        "lost": text.replace("animals.jsonl", "nowhere.jsonl"),
    }
    for name, other in others.items():
        (tmp_path / f"{name}.yaml").write_text(other.replace("task: animals", f"task: {name}"))
    names, message = REFUSED[case]
    with pytest.raises(FinetuningError, match=rf"recipes/tiny\.yaml: evaluation\.benchmarks: .*{message}"):
        load_benchmarks(spec(tmp_path, *names), WHERE)


@pytest.mark.parametrize(
    ("rows", "limit", "advice"),
    [(12, 4, "Raise evaluation.benchmark_rows"), (4, None, "Leave it out"), (4, 9, "Leave")],
)
def test_benchmarks_of_so_few_rows_that_no_fall_could_show_are_a_mistake(tmp_path, rows, limit, advice):
    asked = spec(write_tasks(tmp_path, rows), "animals", metrics=("exact-match",), benchmark_rows=limit)
    found = load_benchmarks(asked, WHERE)
    told = rf"recipes/tiny\.yaml: evaluation\.benchmarks: animals: 4 rows can prove nothing.* than 7 and 4 .*{advice}"
    with pytest.raises(FinetuningError, match=told):
        require_benchmark_rows(asked, found, WHERE)
    require_benchmark_rows(asked.model_copy(update={"max_benchmark_fall": 1.0}), found, WHERE)


def test_of_a_group_the_rows_of_all_tasks_count(tmp_path):
    animals = (write_tasks(tmp_path) / "animals.yaml").read_text()
    (tmp_path / "more.yaml").write_text(animals.replace("task: animals", "task: more"))
    (tmp_path / "pair.yaml").write_text("group: pair\ntask: [animals, more]\n")
    asked = spec(tmp_path, "pair", metrics=("exact-match",), benchmark_rows=4)
    require_benchmark_rows(asked, load_benchmarks(asked, WHERE), WHERE)


def test_without_lm_eval_it_is_said_how_to_get_it(tasks, monkeypatch):
    monkeypatch.setattr(benchmark_names, "PACKAGE", "lm_eval_that_is_not_there")
    with pytest.raises(FinetuningError, match=r"animals, sums: lm-eval is not installed.*pip install -c constraints"):
        require_names(spec(tasks), WHERE)
    assert load_benchmarks(EvaluationSpec(), WHERE) == {}


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(FinetuningError, match=r"evaluation\.benchmark_folder: .*nowhere is not a folder"):
        require_names(spec(tmp_path / "nowhere"), WHERE)


def test_the_check_of_recipes_looks_names_up(tmp_path, tasks, capsys):
    recipe = {
        "summary": "A recipe with benchmarks",
        "base_model": {"repo": "microsoft/phi-2"},
        "dataset": {"sources": [{"hub": "openai/gsm8k"}]},
        "evaluation": {"benchmarks": ["animals"], "benchmark_folder": str(tasks)},
        "hub": {"repo": "tiny", "license": "mit"},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    assert main(["validate", str(path)]) == 0
    recipe["evaluation"]["benchmark_folder"] = str(tmp_path / "nowhere")
    path.write_text(yaml.safe_dump(recipe))
    assert main(["validate", str(path)]) == 1
    assert f"evaluation.benchmark_folder: {tmp_path / 'nowhere'} is not a folder" in capsys.readouterr().out


def test_an_edited_task_or_row_is_another_benchmark(tmp_path):
    rules = spec(write_tasks(tmp_path / "mine"))
    first = tasks_revision(rules)
    (tmp_path / "mine" / "__pycache__").mkdir()
    (tmp_path / "mine" / "__pycache__" / "scores.pyc").write_bytes(b"")
    assert tasks_revision(rules) == first
    (tmp_path / "mine" / "sums.jsonl").write_text('{"question": "1 + 1", "answer": "2"}\n')
    assert tasks_revision(rules) != first
    assert tasks_revision(EvaluationSpec()) == {}


@pytest.mark.parametrize("named", ["dataset_path: rows", "dataset_path: 'rows'  # of ours", '  data_dir: "rows"'])
def test_a_folder_of_data_is_in_the_revision_wherever_its_name_is_relative_to(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "a.yaml").write_text(f"task: a\n{named}\ntest_split: other\n")
    for folder in ("rows", "tasks/rows", "other"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "test.jsonl").write_text("x")
    rules = spec(tmp_path / "tasks", "a")
    for folder, counts in (("rows", True), ("tasks/rows", True), ("other", False)):
        before = tasks_revision(rules)
        (tmp_path / folder / "test.jsonl").write_text("y")
        assert (tasks_revision(rules) != before) is counts, folder


@pytest.mark.parametrize("named", ["dataset_path: .", 'dataset_path: "{cwd}"', "dataset_path: .."])
def test_of_the_folder_that_commands_run_in_the_data_files_alone_are_in_the_revision(tmp_path, monkeypatch, named):
    work = tmp_path / "above" / "work"
    for folder in (work / "tasks", work / "rows", work / "artifacts"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(work)
    up = "work/" if named.endswith("..") else ""
    (work / "tasks" / "a.yaml").write_text(
        f"task: a\n{named.format(cwd=work)}\ndataset_kwargs:\n  data_files:\n    test: {up}rows/*.jsonl\n"
        f"    dev: [{up}dev.jsonl]\nprocess_docs: !function tools.some\n"
    )
    files = {
        "rows/1.jsonl": True,
        "rows/2.jsonl": True,
        "dev.jsonl": True,
        "rows/a.md": False,
        "artifacts/a.bin": False,
    }
    for name in files:
        (work / name).write_text("x")
    rules = spec(work / "tasks", "a")
    for name, counts in files.items():
        before = tasks_revision(rules)
        (work / name).write_text("y")
        assert (tasks_revision(rules) != before) is counts, name


LOOSE = [
    "dataset_path: .",
    'dataset_path: "{cwd}"',
    "dataset_path: json\ndataset_kwargs: {data_dir: ./}",
    "dataset_path: .\ndataset_kwargs: {data_files: {test: rows.jsonl}}",
]


@pytest.mark.parametrize("named", LOOSE)
def test_a_task_whose_data_is_whatever_lies_where_the_command_runs_is_refused(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    folder = write_tasks(tmp_path / "tasks")
    (tmp_path / "rows.jsonl").write_text((folder / "sums.jsonl").read_text())
    text = (folder / "sums.yaml").read_text().replace("task: sums", "task: own")
    named = named.replace("{cwd}", str(tmp_path))
    loose = text.replace("dataset_path: json", named).replace("dataset_kwargs:\n  data_files: {test: sums.jsonl}\n", "")
    (folder / "own.yaml").write_text(loose)
    with pytest.raises(
        FinetuningError, match=r"benchmarks: own of .*own\.yaml: .*any file may lie there. Name those that are"
    ):
        require_names(spec(folder, "own"), WHERE)
    whole = text.replace("dataset_path: json", f"dataset_path: {tmp_path}").replace("sums.jsonl", "rows.jsonl")
    (folder / "own.yaml").write_text(whole)
    assert len(load_benchmarks(spec(folder, "own"), WHERE)["own"].tasks["own"].eval_docs) == 12


def test_what_a_task_takes_from_elsewhere_is_in_the_revision(tmp_path):
    folder, outside = tmp_path / "tasks", tmp_path / "outside"
    for path in (folder, outside / "linked"):
        path.mkdir(parents=True)
    names = ["base.yaml", "rows.jsonl", "linked/more.yaml", "deeper.yaml"]
    files = [*(outside / name for name in names), folder / ".rows.jsonl"]
    for path in files:
        path.write_text("x")
    (outside / "base.yaml").write_text("include: deeper.yaml\n")
    (folder / "linked").symlink_to(outside / "linked")
    (folder / "a.yaml").write_text(
        f"task: a\ninclude: ../outside/base.yaml\ndataset_kwargs:\n  data_files:\n    test: {outside}/rows.jsonl\n"
        f"    dev: '{folder}/.rows.jsonl'\n"
    )
    rules = spec(folder, "a")
    for path in files:
        before = tasks_revision(rules)
        path.write_text(path.read_text() + "# y")
        assert tasks_revision(rules) != before, path


@pytest.mark.parametrize("kind", UNREAD)
def test_a_task_that_cannot_be_read_has_no_data(tmp_path, kind):
    (tmp_path / "a.yaml").write_text(f"task: a\n{UNREAD[kind]}\n")
    assert tasks_revision(spec(tmp_path, "a"))
