"""A shipped recipe with other bytes or values in it is a recipe, or mistakes with their place."""

import random
import time

import pytest
import yaml

from finetuning.recipe.loading import RecipeError, find, load_file
from finetuning.recipe.recipe import Recipe

VALUES = (None, True, -1, 0, 10**400, 1.5, float("nan"), float("inf"), "", "x" * 10_000, "\0", "\ud800", [], {}, [[]])
VALUES += ({"a": {"b": []}}, ["a", 1, None], {1: 2}, "2020-01-01", "~", "../../x", "https://user:pw@host/x", "é")
MARKS = (b"&a ", b"*a", b"!!python/object:os.system ", b"{", b"[", b": ", b"\t", b"9" * 50)


def of_bytes(draw: random.Random, text: bytes) -> bytes:
    content = bytearray(text)
    for _ in range(draw.choice((1, 3, 20))):
        place = draw.randrange(len(content))
        match draw.choice(("change", "insert", "remove", "repeat")):
            case "change":
                content[place] = draw.randrange(256)
            case "insert":
                content[place:place] = draw.choice(MARKS)
            case "remove":
                del content[place : place + draw.randrange(1, 20)]
            case "repeat":
                content[place:place] = content[place : place + 40]
    return bytes(content)


def of_values(draw: random.Random, text: bytes) -> bytes:
    found = yaml.safe_load(text)
    for _ in range(draw.choice((1, 2, 5))):
        inside = found
        while True:
            key = draw.choice(list(inside)) if isinstance(inside, dict) else draw.randrange(len(inside))
            if isinstance(inside[key], (dict, list)) and inside[key] and draw.random() < 0.7:
                inside = inside[key]
                continue
            inside[key] = draw.choice(VALUES)
            break
    return yaml.safe_dump(found, allow_unicode=True).encode("utf-8", errors="surrogatepass")


@pytest.mark.parametrize("mutated", [of_bytes, of_values])
@pytest.mark.parametrize("name", find())
def test_a_changed_recipe_is_one_or_its_mistakes_with_their_place(tmp_path, name, mutated):
    text, draw, begun = find()[name].read_bytes(), random.Random(name), time.monotonic()
    path = tmp_path / f"{name}.yaml"
    for number in range(30):
        path.write_bytes(mutated(draw, text))
        try:
            assert isinstance(load_file(path), Recipe)
        except RecipeError as error:
            assert path.name in str(error), (number, str(error))
    assert time.monotonic() - begun < 60
