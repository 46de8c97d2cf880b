"""Feedback over HTTP: where the recipe keeps it, an entry is on the disk when its id is told; elsewhere nothing is."""

import json
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from finetuning.feedback.entries import entries
from finetuning.recipe.feedback import FeedbackSpec
from tests.assistants import served, tiny_source

GIVEN = {
    "messages": [{"role": "user", "content": "2 + 3?"}],
    "answers": [{"model": "tiny", "content": "5"}, {"model": "tiny/base", "content": "6"}],
    "preferred": "tiny",
    "settings": {"temperature": 0, "seed": None},
}


@pytest.fixture(scope="module")
def keeping(tmp_path_factory):
    """A server that keeps feedback under the name maths, and the folder of that."""
    root = tmp_path_factory.mktemp("keeping")
    source = tiny_source(root)
    source = replace(source, recipe=source.recipe.model_copy(update={"feedback": FeedbackSpec(name="maths")}))
    with pytest.MonkeyPatch.context() as patch, served(source) as found:
        patch.setenv("FINETUNING_FEEDBACK", str(root / "feedback"))
        yield found.url, root / "feedback" / "maths"


def ask(url, method, path, data=None):
    body = data if isinstance(data, bytes) else None if data is None else json.dumps(data).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, body, method=method)) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_what_was_said_is_kept_and_taken_back(keeping):
    url, folder = keeping
    status, told = ask(url, "POST", "/feedback", GIVEN)
    (entry,) = entries(folder)
    assert status == 201 and told["id"] == entry.id
    assert entry.who and entry.version == "lora_adapter/tiny/0123456789abcdef" and entry.preferred == "tiny"
    assert ask(url, "DELETE", f"/feedback/{entry.id}") == (200, {"deleted": 1})
    assert entries(folder) == [] and ask(url, "DELETE", f"/feedback/{entry.id}")[0] == 404
    assert ask(url, "GET", "/assistant")[1]["feedback"]["name"] == "maths"


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b"{}",
        GIVEN | {"preferred": "x"},
        GIVEN | {"nonsense": 1},
        GIVEN | {"messages": []},
        GIVEN | {"settings": {"a": "\ud800"}},
        GIVEN | {"\ud800": 1},
        GIVEN | {"preferred": "\ud800"},
    ],
)
def test_what_is_none_is_refused_and_not_kept(keeping, data):
    url, folder = keeping
    status, told = ask(url, "POST", "/feedback", data)
    assert status == 400 and told["error"]["message"] and entries(folder) == []


def test_a_recipe_that_keeps_nothing_is_given_nothing(assistant):
    status, told = ask(assistant.url, "POST", "/feedback", GIVEN)
    assert status == 400 and "feedback: null, so that nothing is kept; write feedback: {}" in told["error"]["message"]
    assert ask(assistant.url, "GET", "/assistant")[1]["feedback"] is None
