"""Which recipes' inputs are other ones than when they were last looked at, kept in a cursor that a sensor can store.

>>> new, changed, troubles = look_again(cursor, ["phi-2"], lambda name: "3f1c…")
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from finetuning.errors import FinetuningError
from finetuning.secrets import masked


class Change(NamedTuple):
    """A recipe whose input is another one."""

    name: str
    version: str
    number: int
    """How many changes of this recipe were seen, this one included: the same version may come back."""


@dataclass
class Cursor:
    """What was seen last, by recipe."""

    versions: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    unsettled: dict[str, str] = field(default_factory=dict)
    """Versions that were seen once, where they count from the second time on."""
    first: str = ""
    """The recipe to begin with, where there was no time for it."""

    @staticmethod
    def parse(text: str | None) -> "Cursor":
        """The cursor that `text` holds; an empty one of None, or of what no cursor looks like."""
        try:
            return Cursor(**json.loads(text or "{}"))
        except (TypeError, ValueError):
            return Cursor()

    def text(self) -> str:
        """The cursor as JSON."""
        return json.dumps(asdict(self), sort_keys=True)


def look_again(
    cursor: Cursor,
    names: Iterable[str],
    look: Callable[[str], str | None],
    *,
    settle: bool = False,
    new_is_change: bool = False,
    seconds: float = 40.0,
) -> tuple[Cursor, list[Change], list[str]]:
    """The next cursor, the recipes that changed, and what went wrong, a line a recipe.

    A recipe that could not be looked at keeps what was known of it, so that its change is found later.

    Args:
        look: the version of a recipe's input; None where it has none.
        settle: whether a version counts only once it was seen twice in a row, as files may be half written.
        new_is_change: whether a recipe that was never seen is one that changed, unless none was seen before.
        seconds: after these the rest of the recipes is left for the next time.
    """
    end, is_first = time.monotonic() + seconds, not cursor.versions
    names = list(names)
    start = names.index(cursor.first) if cursor.first in names else 0
    after, changed, troubles = Cursor(numbers=dict(cursor.numbers)), [], []
    for name in [*names[start:], *names[:start]]:
        known = cursor.versions.get(name)
        try:
            if time.monotonic() > end:
                after.first = after.first or name
                raise FinetuningError(f"not looked at: the others took {seconds:g} s")
            version = look(name)
        except FinetuningError as error:
            troubles.append(f"{name}: {masked(str(error))}")
            version = known
        if version is None:
            continue
        if settle and known not in (None, version) and cursor.unsettled.get(name) != version:
            after.unsettled[name], version = version, known
        if known != version and (known is not None or (new_is_change and not is_first)):
            after.numbers[name] = after.numbers.get(name, 0) + 1
            changed.append(Change(name, version, after.numbers[name]))
        after.versions[name] = version
    return after, changed, troubles
