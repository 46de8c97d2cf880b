"""Finds damaged files of a base model before transformers does, whose words for it help nobody."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from finetuning import git_lfs
from finetuning.errors import FinetuningError

# JSON files that hold an object, without which nothing is loaded.
OBJECTS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def require_whole(files: Iterable[Path], where: str) -> None:
    """Check the files that a model is read from: all of the small ones, of weights what is quickly looked at.

    Args:
        where: the recipe's file.

    Raises:
        FinetuningError: one of them is damaged, or stands for a file that was never fetched.
    """
    for path in files:
        if fault := _fault_of(path):
            raise FinetuningError(f"{where}: base_model: {path} {fault}.")


def _fault_of(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(len(git_lfs.BEGINS))
        if start == git_lfs.BEGINS:
            return git_lfs.IS_A_POINTER
        if path.suffix == ".safetensors":
            return _fault_of_safetensors(start, path.stat().st_size, file)
        if path.suffix == ".gguf" and not start.startswith(b"GGUF"):
            return "is no GGUF file: it does not begin with GGUF. Fetch or make it again"
    if path.name in OBJECTS:
        try:
            is_object = isinstance(json.loads(path.read_bytes()), dict)
        except (ValueError, RecursionError) as error:
            return f"is no JSON ({error}). Fetch or make it again"
        return None if is_object else "holds no JSON object. Fetch or make it again"
    return None


def _fault_of_safetensors(start: bytes, size: int, file: BinaryIO) -> str | None:
    """What is wrong with a file by its first bytes and its header, which says how long it is."""
    length = int.from_bytes(start[:8], "little")
    if size < 8 or length > size - 8:
        return f"is cut short or damaged: it has {size:,} bytes, and its header alone would be longer. Fetch it again"
    file.seek(8)
    try:
        header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError):
        return "is damaged: its header cannot be read. Fetch or make it again"
    if whole != size:
        return f"is cut short or damaged: it has {size:,} bytes, and its header says {whole:,}. Fetch it again"
    return None
