"""What the UI is told of a repo that is, or is no longer, what was published last."""

import pytest

from assets.hub_state import drift_of, state_of
from finetuning.evaluation.report import Proof, Verdict
from resources.hub_client.versions import Head

A, B = "a" * 16, "b" * 16
LAST = {"repo_id": "lab/maths", "commit": "1" * 40, "tag": A}


def head(commit="1" * 40, title=f"Publish maths ({A})", tag: str | None = A):
    return Head("lab/maths", commit, title, ("eve",), tag, Proof(adapter="f" * 16, verdict=Verdict(passed=True)))


@pytest.mark.parametrize(
    ("there", "last", "drift"),
    [
        (head(), LAST, "none"),
        (head(commit="2" * 40), LAST, "none"),
        (None, None, "none"),
        (None, LAST, "lab/maths is gone, or this account may not see it any more"),
        (head(), None, "lab/maths is there, and nothing was published from here yet"),
        (head("2" * 40, f"Publish maths ({B})", B), LAST, f"version {B} is in force (by eve), and {A} was published"),
        (head("2" * 40, "Mend the card", None), LAST, f"'Mend the card' by eve was committed after version {A}"),
    ],
    ids=["as published", "the same again", "nothing anywhere", "gone", "from elsewhere", "another version", "edited"],
)
def test_drift_is_said_in_words(there, last, drift):
    assert drift_of(there, last).startswith(drift)


def test_the_state_shows_head_version_and_verdict():
    shown = state_of(head(), LAST, "http://127.0.0.1:1")
    assert shown["url"].value == "http://127.0.0.1:1/lab/maths"
    assert (shown["tag"], shown["adapter"], shown["verdict"]) == (A, "f" * 16, "passed")
    assert shown["last_publication"] == shown["commit"] == "1" * 40
    assert state_of(None, None, "http://127.0.0.1:1") == {"endpoint": "http://127.0.0.1:1"}
