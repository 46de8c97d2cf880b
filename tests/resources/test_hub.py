"""The hub resource against the local hub: one commit and one tag for what is new, nothing for what is there."""

from functools import partial

import pytest
from huggingface_hub import HfApi

from finetuning.errors import FinetuningError
from resources.hub import Hub, environment_of_libraries
from resources.hub_client.connection import HubConnection
from resources.hub_server.local import local_hub

A, B = "a" * 16, "b" * 16


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    with local_hub(tmp_path_factory.mktemp("hub"), grace=1.0) as hub:
        yield HubConnection("local", hub.endpoint, HfApi(endpoint=hub.endpoint, token=hub.token))


@pytest.fixture
def files(tmp_path):
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text(name)
    return {path.name: path for path in tmp_path.iterdir()}


def publish(connection, repo, files, tag):
    return connection.publish(connection.repo_id(repo), files, tag=tag, title="Publish it", private=True)


def titles(connection, repo):
    return [commit.title for commit in connection.api.list_repo_commits(connection.repo_id(repo))]


def test_publishing_makes_one_commit_and_one_tag(connection, files):
    made = publish(connection, "first", files, A)
    assert made.created and made.repo_id == "local/first"
    assert titles(connection, "first") == [f"Publish it ({A})", "initial commit"]
    assert set(connection.api.list_repo_files("local/first", revision=A)) == {".gitattributes", *files}


def test_the_same_twice_makes_no_second_commit(connection, files):
    first, again = (publish(connection, "twice", files, A) for _ in range(2))
    assert (first.commit, again.created) == (again.commit, False)
    assert len(titles(connection, "twice")) == 2


def test_a_new_version_leaves_nothing_of_the_old_one(connection, files):
    publish(connection, "new", files, A)
    publish(connection, "new", {"three.txt": files["one.txt"]}, B)
    assert set(connection.api.list_repo_files("local/new")) == {".gitattributes", "three.txt"}
    assert set(connection.api.list_repo_files("local/new", revision=A)) == {".gitattributes", *files}


def test_going_back_to_an_older_version_publishes_it_again(connection, files):
    old = publish(connection, "back", files, A)
    assert connection.has({"repo_id": old.repo_id, "commit": old.commit, "tag": old.tag})
    publish(connection, "back", {"three.txt": files["one.txt"]}, B)
    assert not connection.has({"repo_id": old.repo_id, "commit": old.commit, "tag": old.tag})
    again = publish(connection, "back", files, A)
    assert again.created
    assert set(connection.api.list_repo_files("local/back")) == {".gitattributes", *files}


def test_a_death_between_commit_and_tag_is_mended_without_a_second_commit(connection, files):
    made = publish(connection, "died", files, A)
    connection.api.delete_tag("local/died", tag=A)
    mended = publish(connection, "died", files, A)
    assert (mended.commit, len(titles(connection, "died"))) == (made.commit, 2)


def test_a_version_that_came_after_the_one_that_was_compared_with_is_not_overwritten(connection, files):
    first = publish(connection, "compared", files, A)
    second = publish(connection, "compared", {"three.txt": files["one.txt"]}, B)
    publish_onto = partial(connection.publish, "local/compared", files, title="Publish it", private=True)
    with pytest.raises(FinetuningError, match=f"its head is {second.commit[:12]}, and what is to be published was"):
        publish_onto(tag="c" * 16, onto=first.commit)
    assert len(titles(connection, "compared")) == 3
    assert publish_onto(tag="c" * 16, onto=second.commit).created


def test_somebody_elses_commit_is_named_and_kept(connection, files):
    publish(connection, "shared", files, A)
    connection.api.upload_file(
        path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id="local/shared", commit_message="Add my notes"
    )
    with pytest.raises(FinetuningError, match=r"'Add my notes' by local\) was not made by this recipe"):
        publish(connection, "shared", files, B)
    assert titles(connection, "shared")[0] == "Add my notes"


def test_a_tag_on_it_does_not_make_somebody_elses_commit_ours(connection, files):
    made = publish(connection, "tagged", files, A)
    connection.api.upload_file(
        path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id="local/tagged", commit_message="Mend the card"
    )
    connection.api.create_tag("local/tagged", tag="v1.1")
    assert connection.has({"repo_id": made.repo_id, "commit": made.commit, "tag": made.tag})
    with pytest.raises(FinetuningError, match=r"'Mend the card' by local\) was not made by this recipe"):
        publish(connection, "tagged", files, B)


def test_a_repo_that_somebody_filled_is_not_taken_over(connection, files):
    connection.api.create_repo("local/filled", private=True)
    connection.api.upload_file(path_or_fileobj=b"x", path_in_repo="model.safetensors", repo_id="local/filled")
    with pytest.raises(FinetuningError, match="was not made by this recipe"):
        publish(connection, "filled", files, A)


def test_a_published_repo_becomes_private_when_the_recipe_says_so(connection, files):
    for private, tag in ((False, A), (True, B)):
        connection.publish("local/shown", files, tag=tag, title="Publish it", private=private)
        assert connection.is_public("local/shown") is not private
        files = {**files, "more.txt": files["one.txt"]}


def test_a_repo_that_is_gone_is_not_there(connection):
    assert not connection.has({"repo_id": "local/never", "commit": "a" * 40, "tag": A})


def test_a_wrong_token_is_explained_and_not_shown(connection, files):
    wrong = HubConnection("local", connection.endpoint, HfApi(endpoint=connection.endpoint, token="hf_secret_wrong"))
    for act in (wrong.owner, lambda: publish(wrong, "local/first", files, "c" * 16)):
        with pytest.raises(FinetuningError, match="HF_TOKEN") as mistake:
            act()
        assert "hf_secret" not in str(mistake.value)


def test_no_token_is_explained(connection):
    with pytest.raises(FinetuningError, match=r"needs a token, and HF_TOKEN is not set"):
        HubConnection("local", connection.endpoint, HfApi(endpoint=connection.endpoint, token=False)).owner()


@pytest.mark.parametrize("deadline", ["soon", "0", "-1", "inf", "nan", ""])
def test_a_deadline_that_is_no_number_of_seconds_is_said_before_anything_is_asked(deadline):
    with (
        pytest.raises(FinetuningError, match=r"FINETUNING_HUB_DEADLINE: .* is not a number of seconds"),
        Hub(deadline=deadline).connect(),
    ):
        pass


@pytest.mark.parametrize(
    ("source", "hub", "own", "read_with"),
    [
        ("https://a.example", "local", "", "hf_token"),
        ("https://a.example", "https://A.example/", "", "hf_token"),
        ("https://a.example", "https://b.example", "", False),
        ("https://a.example", "https://b.example", "hf_own", "hf_own"),
        ("https://a.example", "local", "hf_own", "hf_own"),
    ],
)
def test_a_token_is_sent_to_the_hub_that_it_is_for_and_to_no_other(source, hub, own, read_with, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    monkeypatch.setenv("FINETUNING_SOURCE_TOKEN", own)
    resource = Hub(source=source, address=hub)
    with resource.connect_source(api_only=True) as api:
        assert (api.endpoint, api.token) == (source, read_with)
    if hub != "local":
        with resource.connect() as connection:
            assert (connection.endpoint, connection.api.token) == (hub.rstrip("/"), "hf_token")
    implicit = "HF_HUB_DISABLE_IMPLICIT_TOKEN" not in environment_of_libraries(source, hub)
    assert implicit is (read_with == "hf_token")


def test_the_local_hub_can_be_read_from_while_another_is_published_to(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    with Hub(source="local", address="https://b.example", state=str(tmp_path)).connect_source(api_only=True) as api:
        assert api.whoami()["name"] == "local" and api.token != "hf_token"


@pytest.mark.parametrize("address", ["huggingface.co", "Local", "https://me:hf_x@hub.example", "ftp://hub.example"])
def test_an_address_that_is_none_is_said_with_its_variable(address):
    for resource, name in ((Hub(source=address), "SOURCE_HUB"), (Hub(address=address), "HUB")):
        connect = resource.connect_source if name == "SOURCE_HUB" else resource.connect
        with pytest.raises(FinetuningError, match=f"FINETUNING_{name}: .* is neither local nor the address"), connect():
            pass


def test_what_a_gitignore_leaves_out_is_missed_before_the_tag(connection, files):
    connection.api.create_repo("local/short", private=True)
    lied = HubConnection(
        "local", connection.endpoint, ForgetfulApi(endpoint=connection.endpoint, token=connection.api.token)
    )
    with pytest.raises(FinetuningError, match=r"does not hold what was sent \(two\.txt\), and gets no tag"):
        publish(lied, "local/short", files, A)
    assert not connection.api.list_repo_refs("local/short").tags


class ForgetfulApi(HfApi):
    """A client that sends one file too few, as the Hub's own does with those that it is told to ignore."""

    def create_commit(self, repo_id, operations, **options):
        return super().create_commit(repo_id, operations[:-1], **options)
