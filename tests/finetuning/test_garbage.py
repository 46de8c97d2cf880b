"""How often Python looks for circles of objects, and among which."""

import gc
import subprocess
import sys
import weakref

import pytest

from finetuning.garbage import NEW_OBJECTS, importing, look_rarely, looking_at_new, not_looking


class Circle:
    """An object that refers to itself, which only a look for circles frees."""

    def __init__(self):
        self.itself = self


@pytest.fixture(autouse=True)
def _as_before():
    threshold = gc.get_threshold()
    gc.enable()
    yield
    gc.enable()
    gc.set_threshold(*threshold)


def test_a_look_comes_after_so_many_new_objects():
    looks = []
    look_rarely()
    gc.collect()
    gc.callbacks.append(lambda phase, of: looks.append(of["generation"]))
    try:
        kept = [[] for _ in range(NEW_OBJECTS // 2)]
        assert not looks
        kept += [[] for _ in range(NEW_OBJECTS)]
        assert looks
    finally:
        gc.callbacks.pop()


@pytest.mark.parametrize("block", [importing, not_looking, looking_at_new])
@pytest.mark.parametrize("enabled", [True, False])
def test_after_a_block_it_looks_as_before_even_if_the_block_fails(block, enabled):
    if not enabled:
        gc.disable()
    with pytest.raises(ZeroDivisionError), block():
        assert not gc.isenabled()
        _ = 1 / 0
    assert gc.isenabled() is enabled


def test_circles_that_a_block_makes_are_found_in_it():
    with looking_at_new():
        made = weakref.ref(Circle())
        gc.collect()
        assert made() is None


def test_what_was_imported_stays_out_of_every_look_after_other_blocks_too():
    with importing():
        imported = Circle()
    with looking_at_new():
        new = Circle()
    looked_through = {id(each) for each in gc.get_objects()}
    assert id(new) in looked_through
    assert id(imported) not in looked_through


def test_where_nothing_was_imported_so_a_block_keeps_nothing_out():
    code = (
        "import gc\nfrom finetuning.garbage import looking_at_new\n"
        "with looking_at_new():\n    assert gc.get_freeze_count() > 1000\n"
        "print(gc.get_freeze_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "0", done.stderr
