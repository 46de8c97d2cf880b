"""Find out whether the benchmarks that a recipe names exist: lm-eval tasks and groups of them, without loading any."""

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from finetuning.errors import FinetuningError
from finetuning.recipe.evaluation import EvaluationSpec
from finetuning.recipe.mistakes import nearest

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Entry


PACKAGE = "lm_eval"

SHOWN = 12  # names in a message
# Kinds of files, which are no folder of data.
READERS = ("json", "csv", "parquet", "arrow", "text")

# What `datasets.load_dataset` takes as `data_files`.
DataFiles = str | list["DataFiles"] | Mapping[str, "DataFiles"]


def require_names(spec: EvaluationSpec, where: str) -> None:
    """Check that lm-eval is installed and knows each of `spec.benchmarks`; fetches no data set.

    Raises:
        FinetuningError: it is not installed, or there is no task of a name.
    """
    if spec.benchmarks:
        task_index(spec, where)


def task_folders(spec: EvaluationSpec) -> list[Path]:
    return [Path(spec.benchmark_folder).expanduser().resolve()] if spec.benchmark_folder else []


def task_index(spec: EvaluationSpec, where: str) -> "TaskManager":
    """Return lm-eval's index of tasks, which has all of the recipe's."""
    if find_spec(PACKAGE) is None:
        raise FinetuningError(
            f"{where}: evaluation.benchmarks: {', '.join(spec.benchmarks)}: lm-eval is not installed. Install it into "
            "the environment that runs the pipeline: pip install -c constraints.txt lm-eval"
        )
    from lm_eval.tasks import TaskManager

    folders = task_folders(spec)
    for folder in folders:
        if not folder.is_dir():
            raise FinetuningError(f"{where}: evaluation.benchmark_folder: {folder} is not a folder (in {Path.cwd()}).")
    paths: list[str | Path] = [*folders]
    # To index lm-eval's own tasks takes seconds.
    manager = TaskManager(include_path=paths, include_defaults=False)
    if not set(spec.benchmarks) <= set(manager.all_tasks):
        manager = TaskManager(include_path=paths)
    unknown = [name for name in spec.benchmarks if name not in manager.task_index]
    if unknown:
        named = ", ".join(f"{name!r}{nearest(name, manager.all_tasks)}" for name in unknown)
        raise FinetuningError(f"{where}: evaluation.benchmarks: no task of {_places(folders)}: {named}.")
    for folder in folders:
        _require_data_apart(manager, folder, where)
        _find_data_files(manager, folder)
    return manager


def _places(folders: list[Path]) -> str:
    """Where tasks were looked for, in words, with what is in a folder of the user's."""
    from lm_eval.tasks import TaskManager

    known = f"lm-eval {version(PACKAGE)} (`lm-eval ls tasks` has them all)"
    for folder in folders:
        there = TaskManager(include_path=str(folder), include_defaults=False).all_tasks
        known += f", nor of {folder} (which has {', '.join(there[:SHOWN]) or 'no YAML file that is a task'})"
    return known


def _of_folder(manager: "TaskManager", folder: Path) -> "Iterator[tuple[Entry, Path]]":
    """Yield the tasks and groups of a folder, each with its YAML file."""
    for entry in manager.task_index.values():
        if entry.yaml_path is not None and entry.yaml_path.resolve().is_relative_to(folder):
            yield entry, entry.yaml_path


def _require_data_apart(manager: "TaskManager", folder: Path, where: str) -> None:
    """Check that no task of `folder` takes whatever lies where the command runs for its data.

    Raises:
        FinetuningError: one does; nobody could tell whether its data changed.
    """
    for entry, file in _of_folder(manager, folder):
        task = entry.cfg or {}
        given = task.get("dataset_kwargs") or {}
        path, inner = str(task.get("dataset_path") or ""), str(given.get("data_dir") or "")
        is_kind = path in READERS
        has_name = bool(Path(path).name)  # datasets cannot do without, whatever files are named
        if (given.get("data_files") and has_name) or not (inner if is_kind else path and Path(path).is_dir()):
            continue
        data = Path(inner) if is_kind else Path(path, inner)
        if Path.cwd().is_relative_to(data.resolve()):
            raise FinetuningError(
                f"{where}: evaluation.benchmarks: {entry.name} of {file}: "
                f"{f'data_dir: {inner}' if is_kind else f'dataset_path: {path}'} is, or is around, the folder that the "
                f"command runs in ({Path.cwd()}), which is no folder of data: any file may lie there. Name "
                "those that are data (dataset_path: json, dataset_kwargs: {data_files: {test: rows.jsonl}}), or put "
                "them into a folder of their own."
            )


def _find_data_files(manager: "TaskManager", folder: Path) -> None:
    """Let tasks of `folder` read the data files beside them, whatever folder the command runs in."""
    from lm_eval.tasks._yaml_loader import load_yaml

    for entry, file in _of_folder(manager, folder):
        files = ((entry.cfg or {}).get("dataset_kwargs") or {}).get("data_files")
        if files:
            entry.cfg = load_yaml(file)
            entry.cfg["dataset_kwargs"]["data_files"] = _inside(folder, files)
            entry.yaml_path = None  # lm-eval would read the file again


def _inside(folder: Path, files: DataFiles) -> DataFiles:
    """The names of data files, with the whole path of those that are in `folder`."""
    if isinstance(files, Mapping):
        return {split: _inside(folder, names) for split, names in files.items()}
    if isinstance(files, list):
        return [_inside(folder, name) for name in files]
    return str(folder / files) if (folder / files).is_file() else files
