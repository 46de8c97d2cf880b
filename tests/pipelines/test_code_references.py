"""Links to the code: on the page of a forge, or to the file; and never with a token in them."""

from pathlib import Path

import dagster as dg
import pytest

from finetuning.recipe.loading import find
from pipelines import code_references
from pipelines.code_references import ROOT, address, linked, reference
from tests.pipelines.test_definitions import SPECS

COMMIT = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"


@pytest.mark.parametrize(
    ("remote", "page"),
    [
        ("https://github.com/somebody/tuning.git", "https://github.com/somebody/tuning/blob/"),
        ("https://x-access-token:ghp_abc@github.com/somebody/tuning", "https://github.com/somebody/tuning/blob/"),
        ("git@github.com:somebody/tuning.git", "https://github.com/somebody/tuning/blob/"),
        ("ssh://git@gitlab.example.org:2222/a/b/c.git", "https://gitlab.example.org/a/b/c/-/blob/"),
    ],
)
def test_a_remote_has_a_page_without_what_was_needed_to_clone_it(remote, page):
    assert address(remote, COMMIT) == page + COMMIT


@pytest.mark.parametrize("remote", ["", "/srv/git/tuning.git", "https://git.example.org/somebody/tuning.git"])
def test_a_remote_whose_pages_are_not_known_has_none(remote):
    assert address(remote, COMMIT) is None


def test_code_is_linked_on_the_page_where_there_is_one_and_in_the_file_elsewhere(monkeypatch):
    monkeypatch.setattr(code_references, "address_of_root", lambda: "https://github.com/a/b/blob/c")
    assert reference(ROOT / "assets" / "x.py", 3).source == "https://github.com/a/b/blob/c/assets/x.py#L3"
    assert reference(Path("/elsewhere/mine.yaml")).source == "/elsewhere/mine.yaml"
    monkeypatch.setattr(code_references, "address_of_root", lambda: None)
    assert reference(ROOT / "assets" / "x.py", 3).source == f"{ROOT}/assets/x.py:3"


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_asset_is_linked_to_the_line_that_names_it(monkeypatch, name):
    monkeypatch.setattr(code_references, "address_of_root", lambda: None)
    references = linked(dg.AssetSpec(name)).metadata["dagster/code_references"].code_references
    assert len(references) == (len(find()) if name == "recipe" else 1)
    for found in references:
        lines = Path(found.file_path).read_text().splitlines()
        assert name == "recipe" or name in lines[found.line_number - 1]


def test_the_shown_assets_have_these_links():
    assert all("dagster/code_references" in spec.metadata for spec in SPECS.values())
