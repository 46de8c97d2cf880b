"""Each account sees, reads and changes what is its own to see, read and change, through the client and on the pages."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from resources.hub_server.accounts import Account, parse_account
from tests.resources.committing import add, status_of
from tests.resources.serving import Server, serving


def test_an_account_is_written_as_token_user_role_and_organizations():
    assert parse_account("hf_x=bob") == ("hf_x", Account("bob", "write", ()))
    assert parse_account("hf_x=bob:read,lab,club") == ("hf_x", Account("bob", "read", ("lab", "club")))


@pytest.mark.parametrize("text", ["hf_secret", "=bob", "hf_secret=", "hf_secret=bob:admin", "hf_secret=../up"])
def test_an_account_in_another_form_is_refused_without_repeating_its_token(text: str):
    with pytest.raises(ValueError) as error:
        parse_account(text)
    assert "secret" not in str(error.value)


def test_a_token_names_its_user_and_an_unknown_one_is_refused(hub: Server):
    me = hub.api().whoami()
    assert (me["name"], [org["name"] for org in me["orgs"]]) == ("alice", ["lab"])
    assert hub.api("hf_reader").whoami()["auth"]["accessToken"]["role"] == "read"
    repo = hub.api().create_repo("alice/open").repo_id
    assert hub.api(False).model_info(repo).id == repo
    for ask in (HfApi.whoami, lambda api: api.model_info(repo)):
        with pytest.raises(HfHubHTTPError) as error:
            ask(hub.api("hf_unknown"))
        assert status_of(error) == 401


def test_a_private_repo_is_there_for_its_owner_alone(hub: Server):
    repo = hub.api().create_repo("alice/secret", private=True).repo_id
    for token in (False, "hf_unknown", "hf_bob"):
        with pytest.raises((RepositoryNotFoundError, HfHubHTTPError)) as error:
            hub.api(token).model_info(repo)
        assert status_of(error) == (404 if token == "hf_bob" else 401)
        if token != "hf_unknown":
            assert repo not in [model.id for model in hub.api(token).list_models()]
    assert hub.api("hf_reader").model_info(repo).private
    assert repo in [model.id for model in hub.api("hf_reader").list_models(author="alice")]


def test_a_read_token_and_a_stranger_change_nothing(hub: Server):
    repo = hub.api().create_repo("alice/mine").repo_id
    for token in ("hf_reader", "hf_bob"):
        for change in (
            lambda api: api.create_commit(repo, [add("a.txt", "a")], commit_message="No"),
            lambda api: api.create_tag(repo, tag="no"),
            lambda api: api.delete_repo(repo),
            lambda api: api.create_repo("alice/new"),
        ):
            with pytest.raises(HfHubHTTPError) as error:
                change(hub.api(token))
            assert status_of(error) == 403
    assert len(hub.api().list_repo_commits(repo)) == 1


def test_a_member_of_an_organization_publishes_there(hub: Server):
    assert hub.api().create_repo("lab/shared").repo_id == "lab/shared"
    with pytest.raises(HfHubHTTPError) as error:
        hub.api("hf_bob").create_repo("lab/other")
    assert status_of(error) == 403


def test_the_files_of_a_gated_repo_are_for_those_who_were_let_in(hub: Server, tmp_path: Path):
    api, repo = hub.api(), hub.api().create_repo("alice/gated").repo_id
    api.create_commit(repo, [add("a.txt", "a")], commit_message="One")
    api.update_repo_settings(repo, gated="manual")
    assert hub.api("hf_bob").model_info(repo).gated == "manual"
    for token in (False, "hf_bob"):
        with pytest.raises(GatedRepoError):
            hub.api(token).hf_hub_download(repo, "a.txt", cache_dir=tmp_path)
    for page in ("blob", "raw"):
        assert hub.ask("GET", f"/{repo}/{page}/main/a.txt")[0] == 404
    api.grant_access(repo, "bob")
    hub.api("hf_bob").auth_check(repo)
    assert Path(hub.api("hf_bob").hf_hub_download(repo, "a.txt", cache_dir=tmp_path)).read_text() == "a"


def test_the_pages_show_public_repos_with_files_tags_and_commits(hub: Server):
    api, repo = hub.api(), hub.api().create_repo("alice/page").repo_id
    api.create_repo("alice/hidden-page", private=True)
    readme = "---\nlicense: mit\n---\n<script>x</script>"
    commit = api.create_commit(repo, [add("README.md", readme)], commit_message="A <b>title</b>").oid
    api.create_tag(repo, tag="v1")
    listed, page = hub.ask("GET", "/")[1].decode(), hub.ask("GET", f"/{repo}")[1].decode()
    assert repo in listed and "hidden-page" not in listed
    assert "A &lt;b&gt;title" in page and "<script" not in page and "<b>title" not in page
    assert f"/{repo}/tree/v1" in page and f"/{repo}/commit/{commit}" in page
    assert hub.ask("GET", f"/{repo}/raw/v1/README.md") == (200, readme.encode())
    for missing in ("/alice/hidden-page", "/alice/hidden-page/blob/main/.gitattributes", "/alice/none", "/alice/.."):
        assert hub.ask("GET", missing)[0] == 404


def test_the_pages_show_private_repos_where_the_owner_asked_for_it(tmp_path: Path):
    with serving(tmp_path, "--port", "0", "--show-private") as server:
        repo = server.api().create_repo("alice/rows", private=True, repo_type="dataset").repo_id
        assert f"/datasets/{repo}" in server.ask("GET", "/")[1].decode()
        assert server.ask("GET", f"/datasets/{repo}/blob/main/.gitattributes")[0] == 200
        assert server.ask("GET", f"/api/datasets/{repo}")[0] == 401


def test_a_request_that_came_under_another_host_name_is_refused(hub: Server):
    assert hub.ask("GET", "/", Host="rebound.example")[0] == 400
