"""What changed since the last look: nothing lost, nothing twice, whatever could not be looked at in between."""

import pytest

from finetuning.errors import FinetuningError
from finetuning.freshness.changes import Cursor, look_again


class World:
    """Versions by name, some of which cannot be looked at."""

    def __init__(self, **versions):
        self.versions, self.cursor = versions, Cursor()

    def look(self, name):
        if isinstance(self.versions[name], Exception):
            raise self.versions[name]
        return self.versions[name]

    def again(self, **options):
        self.cursor, changed, troubles = look_again(
            Cursor.parse(self.cursor.text()), self.versions, self.look, **options
        )
        return [(change.name, change.version) for change in changed], troubles


DOWN = FinetuningError("the hub cannot be reached")


def test_what_is_seen_first_is_no_change():
    world = World(phi="1", gemma="1")
    assert world.again() == ([], [])
    assert world.again(new_is_change=True) == ([], [])


def test_a_change_is_told_once_and_of_the_recipe_concerned_alone():
    world = World(phi="1", gemma="1")
    world.again()
    world.versions["phi"] = "2"
    assert world.again() == ([("phi", "2")], [])
    assert world.again() == ([], [])


def test_a_change_during_an_outage_is_told_after_it():
    world = World(phi="1", gemma="1")
    world.again()
    world.versions |= {"phi": DOWN, "gemma": "2"}
    assert world.again() == ([("gemma", "2")], ["phi: the hub cannot be reached"])
    world.versions["phi"] = "2"
    assert world.again() == ([("phi", "2")], [])


def test_an_outage_without_a_change_tells_nothing():
    world = World(phi="1")
    world.again()
    world.versions["phi"] = DOWN
    world.again()
    world.versions["phi"] = "1"
    assert world.again() == ([], [])


def test_an_outage_at_the_first_look_makes_no_change_of_what_is_seen_then():
    world = World(phi=DOWN, gemma="1")
    world.again()
    world.versions["phi"] = "1"
    assert world.again() == ([], [])


def test_a_version_that_comes_back_is_a_change_of_its_own():
    world, numbers = World(phi="1"), []
    for version in ("1", "2", "1", "2"):
        world.versions["phi"] = version
        world.cursor, changed, _ = look_again(world.cursor, ["phi"], world.look)
        numbers += [change.number for change in changed]
    assert numbers == [1, 2, 3]


def test_a_new_recipe_is_a_change_where_that_is_asked_for():
    world = World(phi="1")
    world.again(new_is_change=True)
    world.versions["gemma"] = "1"
    assert world.again(new_is_change=True) == ([("gemma", "1")], [])
    world.versions["qwen"] = "1"
    assert world.again() == ([], [])


def test_files_that_are_still_written_are_waited_for():
    world, told = World(phi="0 bytes"), []
    for version in ("0 bytes", "10 bytes", "20 bytes", "20 bytes", "20 bytes"):
        world.versions["phi"] = version
        told.append(world.again(settle=True)[0])
    assert told == [[], [], [], [("phi", "20 bytes")], []]


def test_a_recipe_that_names_nothing_of_the_kind_is_passed_over():
    world = World(phi=None)
    assert world.again() == ([], []) and world.cursor.versions == {}


def test_what_there_was_no_time_for_is_looked_at_the_next_time():
    world = World(phi="1")
    world.again()
    world.versions["phi"] = "2"
    changed, troubles = world.again(seconds=-1)
    assert changed == [] and "not looked at" in troubles[0]
    assert world.again() == ([("phi", "2")], [])


def test_recipes_that_there_was_no_time_for_are_the_first_the_next_time():
    world = World(phi="1", gemma="1")
    world.again()
    world.versions |= {"phi": "2", "gemma": "2"}
    clock = iter([0.0, 1.0, 50.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetuning.freshness.changes.time.monotonic", lambda: next(clock))
        changed, _ = world.again()
        assert changed == [("phi", "2")]
        clock = iter([0.0, 1.0, 50.0])
        changed, troubles = world.again()
    assert changed == [("gemma", "2")] and troubles[0].startswith("phi: not looked at")


@pytest.mark.parametrize("text", [None, "", "3f1c", "[]", '{"other": 1}'])
def test_a_cursor_that_is_none_is_an_empty_one(text):
    assert Cursor.parse(text) == Cursor()


def test_what_went_wrong_is_told_without_passwords():
    world = World(phi=FinetuningError("https://bob:hunter2secretpw@host/x.jsonl: no such file"))
    assert "hunter2" not in str(world.again())
