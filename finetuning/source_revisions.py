"""Says which version of its data a recipe's source names right now, without reading a row.

("openai/gsm8k", revision main) -> "e53f048856ff4f594e959d75785d2c2d37b678ee"
("data/*.jsonl") -> "sha256:9f86d081884c7d65"
("linear-equations") -> "linear-equations@1"
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from finetuning import linear_equations
from finetuning.errors import FinetuningError
from finetuning.recipe import DatasetSpec, SourceSpec

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def sources(dataset: DatasetSpec) -> dict[str, tuple[SourceSpec, str]]:
    """Every source of `dataset` with its path in the recipe, by the stem of the file that holds its rows.

    `train-00`, `train-01`, … are `dataset.sources`; `eval-00`, … are `dataset.eval.sources`.
    """
    training = {f"train-{i:02d}": (source, f"dataset.sources[{i}]") for i, source in enumerate(dataset.sources)}
    evaluation = {
        f"eval-{i:02d}": (source, f"dataset.eval.sources[{i}]") for i, source in enumerate(dataset.eval.sources or ())
    }
    return training | evaluation


def resolve_all(dataset: DatasetSpec, *, api: "HfApi", where: str) -> dict[str, str]:
    """The revision of every source, by the names that `sources` gives them; `where` is the recipe's file."""
    return {
        stem: resolve(source, api=api, where=f"{where}: {path}") for stem, (source, path) in sources(dataset).items()
    }


def resolve(source: SourceSpec, *, api: "HfApi", where: str) -> str:
    """The commit of a Hub data set, a hash over the names and contents of files, or a generator's version.

    Args:
        where: the source's place, such as `recipes/phi-2.yaml: dataset.sources[0]`.

    Raises:
        FinetuningError: the hub has no such data set or revision, or does not let it be read; or no file matches.
    """
    if source.hub:
        return _commit(source.hub, source.revision, api, where)
    if source.files:
        return _hash(matching_files(source.files, where))
    return f"{source.generator}@{linear_equations.VERSION}"


def matching_files(patterns: tuple[str, ...], where: str) -> list[Path]:
    """The files that `patterns` match, pattern by pattern, each one once; paths are relative to the working directory.

    Raises:
        FinetuningError: a pattern matches no file.
    """
    matched: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        paths = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        files = sorted(found for found in paths if found.is_file())
        if not files:
            raise FinetuningError(f"{where}.files: no file matches {pattern!r}; {_there(path)}.")
        matched |= dict.fromkeys(files)
    return list(matched)


def _there(pattern: Path) -> str:
    folder = next(parent for parent in pattern.absolute().parents if parent.is_dir())
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"the folder {folder} holds {shown or 'nothing'}"


def _hash(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name} {content}\n".encode())
    return f"sha256:{digest.hexdigest()[:16]}"


def _commit(repo_id: str, revision: str, api: "HfApi", where: str) -> str:
    try:
        return str(api.dataset_info(repo_id, revision=revision).sha)
    except Exception as error:
        from finetuning.hub_errors import explain

        reason = explain(error, repo_id, api.endpoint, has_token=bool(api.token), revision=revision)
    # Raised out here, so that the client's own error, which may hold the token, is no part of the traceback.
    raise FinetuningError(f"{where}: {reason}")
