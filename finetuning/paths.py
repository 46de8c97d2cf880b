"""Tells a path of this machine from the id of a repo, and says what there is where a folder is missing.

>>> is_path("./models/phi"), is_path("microsoft/phi-2")
(True, False)
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from finetuning.errors import FinetuningError, InfrastructureError, UnknownRepoError

SHOWN = 5  # names of what is there


def is_path(text: str) -> bool:
    """Return whether the text can be a path and cannot be the id of a repo (`name` or `owner/name`)."""
    return text.startswith((".", "/", "~")) or "\\" in text or text.endswith("/") or text.count("/") > 1


def no_folder(text: str) -> str:
    """Say that there is no such folder, and what is in the nearest one that exists."""
    path = Path(text).expanduser()
    if path.exists():
        return f"{text} is {'a folder' if path.is_dir() else 'a file and no folder'}"
    above = next((parent for parent in path.parents if parent.is_dir()), Path())
    names = sorted(f"{found.name}/" for found in above.iterdir() if found.is_dir() and not found.name.startswith("."))
    there = ", ".join([*names[:SHOWN], *(["…"] if names[SHOWN:] else [])]) or "no folder"
    return f"the folder {text} does not exist: no such folder (looked in {Path.cwd()}; {above.absolute()} has {there})"


def folder_of_package(name: str, where: str) -> Path:
    """Return the folder of an installed package.

    Args:
        where: the key that names it, such as `recipes/phi-2.yaml: base_model.package`.

    Raises:
        FinetuningError: it is not installed.
    """
    try:
        found = find_spec(name)
    except ModuleNotFoundError:  # of a dotted name, the first part
        found = None
    if found is None or not found.submodule_search_locations:
        raise FinetuningError(
            f"{where}: the package {name!r} is not installed. Install it into the environment that runs the pipeline: "
            f"pip install --no-deps {name.replace('_', '-')}"
        )
    return Path(found.submodule_search_locations[0])


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, in folders that are links too, each folder once."""
    seen: set[str] = set()
    for path, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (found for found in (Path(path, name) for name in sorted(files)) if found.is_file())


def with_folder(reason: FinetuningError, text: str, where: str, advice: str) -> FinetuningError:
    """Return the reason why `text` was not found as a repo; also as a folder, where that may have been meant.

    With a folder of its first name here, `text` is a path before it is a repo of a hub that cannot be asked.

    Args:
        advice: how the recipe names what is on this machine.
    """
    begins_here = "/" in text and Path(text).parts[0] != "/" and Path(Path(text).parts[0]).is_dir()
    if begins_here and isinstance(reason, (UnknownRepoError, InfrastructureError)):
        return FinetuningError(f"{where}: {no_folder(text)}. {advice}. As the id of a repo: {reason}")
    if isinstance(reason, UnknownRepoError):
        return UnknownRepoError(f"{where}: {reason} Nor is it a path: {no_folder(text)}. {advice}.")
    return type(reason)(f"{where}: {reason}")
