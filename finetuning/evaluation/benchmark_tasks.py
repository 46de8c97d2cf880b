"""Public benchmarks, as lm-eval has them: which tasks a recipe names, and whether they can be run at all.

>>> load_benchmarks(EvaluationSpec(benchmarks=("mmlu",)), "recipes/phi-2.yaml")["mmlu"].tasks.keys()
dict_keys(['mmlu_abstract_algebra', 'mmlu_anatomy', …])
"""

import glob
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from finetuning.bounded_yaml import BoundedLoader, load
from finetuning.errors import FinetuningError
from finetuning.evaluation.intervals import least_rows
from finetuning.evaluation.verdict import most_rules
from finetuning.paths import files_below
from finetuning.recipe.evaluation import EvaluationSpec

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager
from finetuning.recipe.benchmark_names import PACKAGE, task_folders, task_index

# What may be the path of a file in the text of a task: with a slash or a dot in it.
NAME = re.compile(r"[^\s\"'\[\]{},=]{0,200}[./][^\s\"'\[\]{},=]{1,200}")
# What names a folder of data, if there is one of that name; else it is a repo.
FOLDER = re.compile(r"""^\s*(?:dataset_path|data_dir)\s*:\s*["']?([^"'\n#]{1,200}?)["']?\s*(?:#.*)?$""", re.MULTILINE)
FEWSHOT_SEED = 1234  # lm-eval's own

# lm-eval's aggregations that are a mean over rows, or a function of one, so that rows can be drawn again.
OF_ROWS = ("mean", "perplexity", "weighted_perplexity", "bits_per_byte")


@dataclass(frozen=True)
class Benchmark:
    """One name of `evaluation.benchmarks`: a task, or the tasks of a group, by one metric."""

    name: str
    tasks: "dict[str, Task]"
    metric: str
    """The first of lm-eval's metrics of the task that is a mean over rows, or a function of one."""
    aggregation: str
    higher_is_better: bool


def load_benchmarks(spec: EvaluationSpec, where: str) -> dict[str, Benchmark]:
    """The benchmarks of the recipe by name, with their rows, which lm-eval fetches for this.

    Raises:
        FinetuningError: lm-eval is not installed, does not know a name or cannot load a task; or the task runs code of
            the model's, wants pictures, or has no metric that is a mean over its rows.
    """
    if not spec.benchmarks:
        return {}
    manager = task_index(spec, where)
    return {name: _benchmark(name, _tasks(manager, name, where), where) for name in spec.benchmarks}


def require_benchmark_rows(spec: EvaluationSpec, benchmarks: Mapping[str, Benchmark], where: str) -> None:
    """Refuse a benchmark of so few rows that no fall could show, whatever is trained.

    Raises:
        FinetuningError: one of them has so few, or `evaluation.benchmark_rows` leaves it so few.
    """
    limit, rules = spec.benchmark_rows, most_rules(spec)
    least = least_rows(rules, spec.max_benchmark_fall)
    for name, benchmark in benchmarks.items():
        there = [len(task.eval_docs) for task in benchmark.tasks.values()]
        rows = sum(min(number, limit or number) for number in there)
        if rows < least:
            raise FinetuningError(
                f"{where}: evaluation.benchmarks: {name}: {rows} rows can prove nothing, whatever is trained: with "
                f"fewer than {least} and {rules} rules not even all answers wrong after all right would be a fall of "
                f"more than {spec.max_benchmark_fall:g} (max_benchmark_fall) beyond its noise. "
                + ("Raise evaluation.benchmark_rows" if sum(there) > rows else "Leave it out")
                + ", or write max_benchmark_fall: 1, which asks nothing of benchmarks."
            )


def tasks_revision(spec: EvaluationSpec) -> dict[str, Any]:
    """What the names of the benchmarks stand for: lm-eval's version, and the sha256 of each file of the folder."""
    if not spec.benchmarks:
        return {}
    try:
        found = version(PACKAGE)
    except PackageNotFoundError:
        found = None
    files = {str(path.relative_to(folder)): path for folder in task_folders(spec) for path in _files(folder)}
    named = list(files.values())
    while named:
        for name, path in _named_in(named.pop()):
            if path not in files.values():
                files[name] = path
                named.append(path)
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    return {"benchmarks": {"lm_eval": found, "folder": hashes}}


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder, sorted, without what Python and editors leave there."""
    for path in sorted(files_below(folder)):
        hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
        if not hidden:
            yield path


def _named_in(path: Path) -> Iterator[tuple[str, Path]]:
    """The files that a task's YAML names, by the name that it gives them: what it includes, and its data.

    Those of a folder with a whole path, or of data, are among them; of one that lies around the task or around where
    lm-eval runs, the named files alone. A name may be relative to the YAML, or to where lm-eval runs.
    """
    if path.suffix not in (".yaml", ".yml"):
        return
    text = path.read_text(errors="replace")
    folders, data_files = {*FOLDER.findall(text)}, _data_files(text)
    for name in sorted({*NAME.findall(text)} | folders):
        for found in (path.parent / name, Path(name).absolute()):
            if found.is_file():
                yield name, found.resolve()
            elif (name in folders or Path(name).is_absolute()) and found.is_dir() and len(found.parts) > 2:
                inside = [other for other in (Path.cwd(), path.resolve()) if other.is_relative_to(found.resolve())]
                if not inside or (not data_files and inside == [path.resolve()]):
                    yield from ((str(file), file.resolve()) for file in _files(found))
    for name in sorted(data_files):
        for folder in (path.parent, Path(), *map(Path, sorted(folders))):
            pattern = str(folder / name)
            files = map(Path, sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207 (a pattern may be a whole path)
            yield from ((str(file.absolute()), file.resolve()) for file in files if file.is_file())


class _TaskLoader(BoundedLoader):
    """Reads the YAML of a task without the functions that it names."""


_TaskLoader.add_multi_constructor("!", lambda loader, tag, node: None)


def _data_files(text: str) -> set[str]:
    """The names and patterns of `data_files` in the YAML of a task."""
    try:
        task = load(text, _TaskLoader)
    except yaml.YAMLError:  # lm-eval says so where it is asked for
        return set()
    given = task.get("dataset_kwargs") if isinstance(task, dict) else None
    return {*_texts(given.get("data_files"))} if isinstance(given, dict) else set()


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, Mapping)):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(entry)


def _tasks(manager: "TaskManager", name: str, where: str) -> "dict[str, Task]":
    try:
        tasks = manager.load([name])["tasks"]
    except Exception as error:  # whatever a data set, a template or a function of the user's raises
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    else:
        return tasks
    # Out here, so that a client's own error, which may hold a token, is no part of the traceback.
    raise FinetuningError(f"{where}: evaluation.benchmarks: {name}: lm-eval cannot load it: {reason}")


def _benchmark(name: str, tasks: "dict[str, Task]", where: str) -> Benchmark:
    """The benchmark of these tasks, which are ready to be run: shots and their seed are set."""
    place = f"{where}: evaluation.benchmarks: {name}"
    found = set()
    for task in tasks.values():
        if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
            what = "runs code that the model wrote" if getattr(task, "UNSAFE_CODE", False) else "asks about pictures"
            raise FinetuningError(f"{place}: {task.task_name} {what}, which is not supported here. Leave it out.")
        found.add(_metric(task, place))
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
        task.set_fewshot_seed(FEWSHOT_SEED)
    if len(found) != 1:
        metrics = ", ".join(sorted({metric for metric, *_ in found})) or "no task"
        raise FinetuningError(f"{place}: its tasks have not one metric but {metrics}. Name the tasks themselves.")
    return Benchmark(name, tasks, *found.pop())


def _metric(task: "Task", place: str) -> tuple[str, str, bool]:
    """Name, aggregation and direction of the first metric of a task that is a mean over rows, or a function of one."""
    from lm_eval.api.registry import get_aggregation

    known = {get_aggregation(name): name for name in OF_ROWS}
    # Of ConfigurableTask, whose base class annotates them as returning nothing.
    aggregations, better = cast("dict[str, Any]", task.aggregation()), cast("dict[str, bool]", task.higher_is_better())
    for metric, aggregation in aggregations.items():
        if aggregation in known:
            return metric, known[aggregation], bool(better[metric])
    raise FinetuningError(
        f"{place}: none of its metrics ({', '.join(map(str, aggregations))}) is a mean over rows, so that no gain has "
        "an interval. Leave it out."
    )
