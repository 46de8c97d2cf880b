"""Versions of a repo on the local hub: which one is in force, and which of them may come back."""

import json
from dataclasses import replace

import pytest
from huggingface_hub import HfApi

from finetuning.digests import sha256
from finetuning.errors import FinetuningError
from resources.hub_client.connection import HubConnection
from resources.hub_client.versions import REPORT, WEIGHTS, adapter_of, download, head_of, roll_back, version_about
from resources.hub_server.local import local_hub

A, B = "a" * 16, "b" * 16
TITLE, CONFIG = "Publish it", "adapter_config.json"


@pytest.fixture(scope="module")
def hub_state(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def connection(hub_state):
    with local_hub(hub_state, grace=1.0) as hub:
        yield HubConnection("local", hub.endpoint, HfApi(endpoint=hub.endpoint, token=hub.token))


class Model:
    """A repo, and what is published to it: weights that no other version has, and a report on them."""

    def __init__(self, connection, repo, folder):
        self.connection, self.repo_id, self.folder = connection, f"local/{repo}", folder

    def publish(self, tag, *, passed=True, weights_of=None, adapter=None, left_out=()):
        weights, report = self.folder / WEIGHTS, self.folder / "report.json"
        weights.write_bytes(b"\0" + tag.encode())
        digest = weights_of or sha256(weights)
        report.write_text(
            json.dumps({"adapter": adapter or tag, "verdict": {"passed": passed}, "files": {WEIGHTS: digest}})
        )
        config = self.folder / CONFIG
        config.write_text("{}")
        files = {WEIGHTS: weights, CONFIG: config, REPORT: report, f"only-in-{tag}.txt": report}
        self.recorded = {path: sha256(local) for path, local in files.items() if path not in left_out}
        files = {path: local for path, local in files.items() if path not in left_out}
        return self.connection.publish(self.repo_id, files, tag=tag, title=TITLE, private=True)

    def files(self):
        return set(self.connection.api.list_repo_files(self.repo_id)) - {".gitattributes"}

    def head(self):
        return self.connection.api.list_repo_commits(self.repo_id)[0]


@pytest.fixture
def model(connection, tmp_path, request):
    return Model(connection, request.node.name.replace("_", "-")[:60], tmp_path)


def test_the_head_names_its_version_and_holds_its_report(connection, model):
    assert head_of(connection, model.repo_id) is None
    made = model.publish(A, adapter="f" * 16)
    head = head_of(connection, model.repo_id)
    assert head and (head.commit, head.tag, head.adapter) == (made.commit, A, "f" * 16)
    assert version_about(connection, model.repo_id, "f" * 16) == A
    assert version_about(connection, model.repo_id, "e" * 16) is None
    assert adapter_of(connection, model.repo_id, B) is None


def test_the_files_of_the_head_are_downloaded_without_its_evaluation(connection, model, tmp_path):
    model.publish(A)
    head = head_of(connection, model.repo_id)
    assert head
    download(connection, head, tmp_path / "there")
    assert (tmp_path / "there" / WEIGHTS).read_bytes() == b"\0" + A.encode()
    assert not (tmp_path / "there" / "evaluation").exists()


def test_an_earlier_version_comes_back_with_exactly_its_files(connection, model):
    first, second = model.publish(A), model.publish(B)
    made = roll_back(connection, model.repo_id, A, TITLE)
    assert made.created and made.commit not in (first.commit, second.commit)
    assert model.files() == {WEIGHTS, CONFIG, REPORT, f"only-in-{A}.txt"}
    assert model.head().title == f"{TITLE} ({A})"
    again = roll_back(connection, model.repo_id, A, TITLE)
    assert (again.commit, again.created) == (made.commit, False)


def test_what_was_gone_back_from_is_not_published_again_until_something_new_was(connection, model):
    model.publish(A), model.publish(B)
    back = roll_back(connection, model.repo_id, A, TITLE)
    assert not model.publish(B).created and model.head().commit_id == back.commit
    model.publish("c" * 16)
    assert model.publish(B).created and model.head().title == f"{TITLE} ({B})"


def test_going_forward_again_is_going_back_too(connection, model):
    model.publish(A), model.publish(B)
    roll_back(connection, model.repo_id, A, TITLE)
    assert roll_back(connection, model.repo_id, B, TITLE).created
    assert f"only-in-{B}.txt" in model.files()


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ({"passed": False}, "holds no report with a passed verdict"),
        ({"weights_of": "0" * 64}, "is about weights with the sha256 0000"),
    ],
    ids=["that failed", "with other weights"],
)
def test_a_version_that_its_own_report_does_not_speak_for_stays_away(connection, model, old, message):
    model.repo_id = f"local/refused-{len(old)}-{next(iter(old)).replace('_', '-')}"
    model.publish(A, **old)
    now = model.publish(B)
    with pytest.raises(FinetuningError, match=message):
        roll_back(connection, model.repo_id, A, TITLE)
    assert model.head().commit_id == now.commit


@pytest.mark.parametrize("file", [WEIGHTS, CONFIG, REPORT])
def test_a_version_without_a_file_that_a_model_needs_stays_away(connection, model, file):
    model.repo_id = f"local/without-{file.split('/')[-1].split('.')[0].replace('_', '-')}"
    model.publish(A, left_out=[file])
    now = model.publish(B)
    with pytest.raises(FinetuningError, match=r"is not there|holds no report"):
        roll_back(connection, model.repo_id, A, TITLE)
    assert model.head().commit_id == now.commit


@pytest.mark.parametrize("lost", [b"", b"\0other weights!!!", None], ids=["cut short", "of the same length", "gone"])
def test_a_version_whose_weights_the_hub_no_longer_has_whole_stays_away(connection, model, hub_state, lost):
    model.repo_id = f"local/lost-{len(lost or b'gone')}"
    model.publish(A)
    (stored,) = [path for path in hub_state.rglob("*") if path.is_file() and path.read_bytes() == b"\0" + A.encode()]
    now = model.publish(B)
    held = stored.read_bytes()
    stored.unlink() if lost is None else stored.write_bytes(lost)
    try:
        with pytest.raises(FinetuningError, match=f"the version is not whole: {WEIGHTS} "):
            roll_back(replace(connection, deadline=2.0, pause=0.1), model.repo_id, A, TITLE)
    finally:
        stored.write_bytes(held)
    assert model.head().commit_id == now.commit


def test_a_version_that_is_not_what_was_recorded_stays_away(connection, model):
    model.publish(A)
    recorded = model.recorded
    now = model.publish(B)
    for wrong in ({CONFIG: "0" * 64}, {"gone.txt": "0" * 64}):
        with pytest.raises(FinetuningError, match=r"is not what was published|gone\.txt is not there"):
            roll_back(connection, model.repo_id, A, TITLE, recorded | wrong)
    assert model.head().commit_id == now.commit
    assert roll_back(connection, model.repo_id, A, TITLE, recorded).created


def test_an_unknown_version_is_answered_with_those_that_there_are(connection, model):
    model.publish(A)
    connection.api.create_tag(model.repo_id, tag="v1.0")
    for unknown in (B, "v1.0", "main"):
        with pytest.raises(FinetuningError, match=f"has no version '{unknown}' to go back to; there are: {A}"):
            roll_back(connection, model.repo_id, unknown, TITLE)


def test_a_tag_that_somebody_moved_is_no_version(connection, model):
    model.publish(A)
    model.publish(B)
    connection.api.delete_tag(model.repo_id, tag=A)
    connection.api.create_tag(model.repo_id, tag=A, revision="main")
    with pytest.raises(FinetuningError, match="which was not made by this recipe"):
        roll_back(connection, model.repo_id, A, TITLE)


def test_going_back_overwrites_nobodys_own_commit(connection, model):
    model.publish(A), model.publish(B)
    mine = connection.api.upload_file(
        path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id=model.repo_id, commit_message="Add my notes"
    )
    with pytest.raises(FinetuningError, match="'Add my notes' by local"):
        roll_back(connection, model.repo_id, A, TITLE)
    assert model.head().commit_id == mine.oid
    head = head_of(connection, model.repo_id)
    assert head and (head.tag, head.adapter, head.title) == (None, B, "Add my notes")


def test_a_token_that_the_hub_does_not_know_is_explained_and_not_shown(connection, model):
    model.publish(A)
    wrong = HubConnection("local", connection.endpoint, HfApi(endpoint=connection.endpoint, token="hf_secret_wrong"))
    for act in (lambda: head_of(wrong, model.repo_id), lambda: roll_back(wrong, model.repo_id, A, TITLE)):
        with pytest.raises(FinetuningError, match="HF_TOKEN") as mistake:
            act()
        assert "hf_secret" not in str(mistake.value)
