"""Finds the files of this machine that a source of a recipe names.

"data/*.jsonl" -> data/a.jsonl, data/b.jsonl
"""

from collections.abc import Iterator
from pathlib import Path

from finetuning.errors import FinetuningError
from finetuning.recipe.dataset import sources
from finetuning.recipe.mistakes import harmless
from finetuning.recipe.recipe import Recipe

PATTERN_ADVICE = "All files of a folder and of those in it are `FOLDER/**/*.jsonl`."


def local_paths(pattern: str, where: str) -> list[Path]:
    """What a pattern matches, in order; paths are relative to the working directory.

    Args:
        where: the source's place, such as `recipes/phi-2.yaml: dataset.sources[0]`.

    Raises:
        FinetuningError: it matches nothing, with what is there instead.
    """
    try:
        path = Path(pattern).expanduser()
        paths = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except (ValueError, RuntimeError, OSError) as error:
        said = harmless(" ".join(str(error).split()))[:300].rstrip(". ") or type(error).__name__
        raise FinetuningError(f"{where}.files: {harmless(pattern)[:200]!r}: {said}. {PATTERN_ADVICE}") from error
    if not paths and path.is_symlink():
        return [path]
    if not paths:
        raise FinetuningError(f"{where}.files: no file matches {pattern!r}; {_there(path)}.")
    return paths


def missing_files(recipe: Recipe) -> Iterator[str]:
    """Give a line for each pattern of a recipe's sources that no file of this machine matches; asks no network."""
    documents = recipe.knowledge.documents if recipe.knowledge else ()
    named = {path: source.files for source, path in sources(recipe.dataset).values()}
    named |= {f"knowledge.documents[{number}]": spec.files for number, spec in enumerate(documents)}
    for path, files in named.items():
        for pattern in files or ():
            if "://" not in pattern and "::" not in pattern:
                try:
                    local_paths(pattern, f"{recipe.file}: {path}")
                except FinetuningError as error:
                    yield str(error)


def _there(pattern: Path) -> str:
    folder = next(parent for parent in pattern.absolute().parents if parent.is_dir())
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"the folder {folder} holds {shown or 'nothing'}"
