"""How often Python looks for circles of objects that nothing refers to any more (its garbage collection).

It looks through all objects that there are, of which libraries such as torch and transformers make half a million that
stay: a third of a second each time, and a sixth of the time that importing them takes.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEW_OBJECTS = 10_000  # of more than were freed; Python's own 700 is made for small programs


def look_rarely() -> None:
    """Look for circles among new objects once there are many of them."""
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])


@contextmanager
def importing() -> Iterator[None]:
    """Import libraries within the block, and never again look through what is there at its end."""
    with not_looking():
        yield
        gc.freeze()


@contextmanager
def not_looking() -> Iterator[None]:
    """Look for no circles within the block, unless asked to."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def looking_at_new() -> Iterator[None]:
    """Look for circles within the block when asked to, and only among objects that are made in it."""
    had_frozen = gc.get_freeze_count() > 0  # which nobody can tell from what would be frozen here
    with not_looking():
        if not had_frozen:
            gc.freeze()
        try:
            yield
        finally:
            if not had_frozen:
                gc.unfreeze()
