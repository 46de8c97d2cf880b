"""A few hundred bytes of YAML never stand for more than can be read."""

import time

import pytest
import yaml

from finetuning.bounded_yaml import DEEPEST, MOST, load
from finetuning.recipe.mistakes import RecipeError
from finetuning.recipe.strict_yaml import read_yaml
from resources.hub_server.cards import faults_of

LAUGHS = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
ENDLESS = "a: &a [*a]\n"
ENDLESS_MAPPING = "a: &a\n  b: &b\n    c: *a\n"
MERGED = "a: &a {x: 1, y: 2}\nb: {<<: *a, z: 3}\n"
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))
HUGE = {
    "laughs": LAUGHS,
    "merges that double": MERGES,
    "holds itself": ENDLESS,
    "a mapping that holds itself": ENDLESS_MAPPING,
    "deep": "a: " + "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
    "very deep": "a: " + "[" * 5000 + "]" * 5000,
    "long": "a: [" + "1, " * MOST + "]",
    "a long number": "a: 0x" + "f" * 5000,
    "a number of many parts": "a: 1" + ":59" * 300_000,
}
# A value that is not of the tag before it, or of the one that YAML takes it for.
UNTRUE = {
    **{f"{tag} {value}": f"a: !!{tag} {value}" for tag in ("bool", "timestamp") for value in ("maybe", "''", "{}")},
    **{f"{tag} {value}": f"a: !!{tag} {value}" for tag in ("int", "float") for value in ("x", "''", "-", "[1]")},
    **{f"{tag} x": f"a: !!{tag} x" for tag in ("set", "omap", "pairs", "seq", "map", "python/none")},
    "base64": "a: !!binary YQ",
    "a key": "!!bool maybe: 1",
    "in a list": "a: [{b: !!int ''}]",
    "a month 13": "a: 2024-13-01",
    "an offset of 99 hours": "a: 2001-12-14 21:59:43 +99:99",
    "a number that is too large": "a: 1" + ":59" * 200 + ".0",
    "no character": 'a: "\\U00110000"',
    "a character beyond all": 'a: "\\Uffffffff"',
}
UNREAD = HUGE | UNTRUE


@pytest.mark.parametrize("kind", UNREAD)
def test_what_cannot_be_read_is_an_error_of_yaml_at_once(kind, tmp_path):
    started = time.monotonic()
    with pytest.raises(yaml.YAMLError):
        load(UNREAD[kind])
    (tmp_path / "recipe.yaml").write_text(UNREAD[kind])
    with pytest.raises(RecipeError, match=r"recipe\.yaml(:\d+)?: not YAML"):
        read_yaml(tmp_path / "recipe.yaml")
    assert time.monotonic() - started < 5


def test_aliases_that_repeat_a_little_are_what_they_name(tmp_path):
    assert load(MERGED) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2, "z": 3}}
    assert load("") is None and list(faults_of(load("license: mit")))[:1] == []
    (tmp_path / "recipe.yaml").write_text(MERGED)
    assert read_yaml(tmp_path / "recipe.yaml").data == load(MERGED)
