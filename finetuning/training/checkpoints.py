"""Checkpoints of a training: folders that are written whole or not at all, of which the newest ones are kept.

checkpoints/step-0     before the first step
checkpoints/step-120   after 120 steps: what is trained, optimizer, scheduler, random numbers, position in the data
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from finetuning.durable import sync
from finetuning.errors import InfrastructureError

PREFIX, DRAFT = "step-", ".writing"

MIB = 2**20


def checkpoint_of(folder: Path, step: int) -> Path:
    """The checkpoint in `folder` after that step."""
    return folder / f"{PREFIX}{step}"


def step_of(checkpoint: Path) -> int:
    """The number of steps that were made when the checkpoint was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def complete(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first. What a killed process was writing is none."""
    return sorted(folder.glob(f"{PREFIX}*"), key=step_of)


def write_checkpoint(folder: Path, step: int, write: Callable[[Path], None], keep: int) -> Path:
    """The checkpoint of that step, whose files `write` put into an empty folder; of all, the newest `keep` remain.

    Raises:
        FinetuningError: the disk is full.
    """
    final, draft = checkpoint_of(folder, step), folder / DRAFT
    # The state after a step is always the same one.
    if not final.exists():
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            write(draft)
            sync(*draft.iterdir(), draft)
        except Exception as error:  # each library that writes has an error of its own
            written = sum(path.stat().st_size for path in draft.iterdir())
            shutil.rmtree(draft)
            if shutil.disk_usage(folder).free > written:
                raise
            raise _full(folder, written) from error
        draft.rename(final)
        sync(folder)
    for old in complete(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def adopt(begun: Path, folder: Path) -> None:
    """Let a training with its checkpoints in `folder` go on from what another one left in `begun`.

    What is in `folder` already is further; the copy is whole or not there.
    """
    if folder.exists():
        return
    draft = folder.with_name(f"{folder.name}{DRAFT}")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(begun, draft)
    draft.rename(folder)


def keep(checkpoints: Path, folder: Path) -> None:
    """Copy what a training goes on from into `folder`: its last checkpoint, and what it keeps beside them."""
    earlier = {checkpoint.name for checkpoint in complete(checkpoints)[:-1]}
    shutil.copytree(checkpoints, folder, ignore=lambda _, names: {DRAFT, *names} & {DRAFT, *earlier})


def require_space(folder: Path, needed: int) -> None:
    """Check that the disk that holds `folder` has `needed` bytes free.

    Raises:
        FinetuningError: it has less.
    """
    if shutil.disk_usage(folder).free < needed:
        raise _full(folder, needed)


def _full(folder: Path, needed: int) -> InfrastructureError:
    free = shutil.disk_usage(folder).free
    return InfrastructureError(
        f"{folder}: the disk is full: checkpoints need {-(-needed // MIB):,} MiB, and {free // MIB:,} MiB are free. "
        "Make room, or set FINETUNING_ARTIFACTS (FINETUNING_ARTIFACTS_CACHE, where that is an address) to a folder on "
        "another disk; training goes on from the last checkpoint."
    )
