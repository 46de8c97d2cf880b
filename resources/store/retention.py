"""Which artifacts nobody refers to any more, and what nobody goes on with, and their removal, beside runs that go on.

>>> found = unreferenced(store, is_published=lambda artifact: False, older_than=timedelta(days=7))
>>> gone = [artifact for artifact in found if store.remove(artifact)]
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from resources.store.artifact import BESIDE, Artifact
from resources.store.store import Key, Store

PUBLISHED = {"published_repo", "published_merged_repo"}


def unreferenced(
    store: Store,
    is_published: Callable[[Artifact], bool],
    older_than: timedelta,
    now: datetime | None = None,
) -> list[Artifact]:
    """Return the artifacts of the store that may go, the oldest first.

    Those stay that are in force, but for what is stored beside others, which is kept for what it is about; those that
    were published and still are, all that these were made from, and those that are younger.
    """
    found, named = store.inventory()
    there = {(artifact.asset, artifact.fingerprint): artifact for artifact in found}
    published = [key for key, artifact in there.items() if key[0] in PUBLISHED and is_published(artifact)]
    kept = lineage(there, [*(key for key in named if key[0] not in BESIDE), *published])
    before = (now or datetime.now(UTC)) - older_than
    loose = [
        artifact
        for key, artifact in there.items()
        if key not in kept and not beside_kept(artifact, kept) and datetime.fromisoformat(artifact.created) < before
    ]
    return sorted(loose, key=lambda artifact: artifact.created)


def lineage(there: dict[Key, Artifact], roots: Iterable[Key]) -> set[Key]:
    """Return the roots, and whatever they were made from, as far as it is there."""
    kept, waiting = set(), list(roots)
    while waiting:
        key = waiting.pop()
        if key in there and key not in kept:
            kept.add(key)
            waiting += there[key].inputs.items()
    return kept


def beside_kept(artifact: Artifact, kept: set[Key]) -> bool:
    """Return whether it is stored beside others, and what it is about stays."""
    beside = BESIDE.get(artifact.asset)
    return beside is not None and (beside.about, artifact.partition) in kept
