"""What looks like a path and is none says so, for models and for data, whatever the hub says or does not say."""

import pytest
from huggingface_hub import HfApi

from finetuning.base_model.source import resolve as resolve_model
from finetuning.dataset.revisions import resolve as resolve_data
from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.paths import is_path, no_folder
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.recipe.source import SourceSpec
from resources.hub_server.local import local_hub

CUT_OFF = HfApi(endpoint="http://127.0.0.1:9", token=False)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with local_hub(tmp_path_factory.mktemp("hub"), grace=1.0) as server:
        yield HfApi(endpoint=server.endpoint, token=server.token)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "phi-3").mkdir(parents=True)
    return tmp_path


def said_of_model(repo, api) -> FinetuningError:
    with pytest.raises(FinetuningError) as refused:
        resolve_model(BaseModelSpec(repo=repo), api, "a.yaml")
    return refused.value


def said_of_data(name, api) -> FinetuningError:
    with pytest.raises(FinetuningError) as refused:
        resolve_data(SourceSpec(hub=name), api=api, where="a.yaml: dataset.sources[0]")
    return refused.value


@pytest.mark.parametrize("text", ["./x", "../x", "/x", "~/x", "x/", "a/b/c", "C:\\models\\x", "."])
def test_a_path_is_told_from_the_id_of_a_repo(text):
    assert is_path(text)


@pytest.mark.parametrize("text", ["phi-2", "microsoft/phi-2", "a.b/c_d-e"])
def test_the_id_of_a_repo_is_no_path(text):
    assert not is_path(text)


@pytest.mark.parametrize("path", ["./data/x", "/nowhere/x", "~/nowhere/x", "data/x/y", "data/"])
def test_a_mistyped_folder_is_no_such_folder_and_no_hub_is_asked(path):
    for said, section in ((said_of_model, "base_model.repo"), (said_of_data, "dataset.sources[0].hub")):
        error = said(path, CUT_OFF)
        assert f"a.yaml: {section}: the folder {path} does not exist: no such folder" in str(error)
        assert not isinstance(error, InfrastructureError)


def test_what_begins_with_a_folder_that_is_here_is_a_folder_first_whatever_the_hub_says(hub):
    for api, reason in ((hub, "has no model models/phi-2"), (CUT_OFF, "cannot be reached")):
        error = said_of_model("models/phi-2", api)
        assert not isinstance(error, InfrastructureError)
        assert "base_model.repo: the folder models/phi-2 does not exist: no such folder" in str(error)
        assert "models has phi-3/)" in str(error) and reason in str(error)


def test_a_repo_that_is_none_says_what_the_hub_said_and_how_a_folder_is_written(hub):
    told = str(said_of_model("microsoft/phi-22", hub))
    assert "has no model microsoft/phi-22" in told and "Nor is it a path" in told and "./" in told
    told = str(said_of_data("openai/gsm8", hub))
    assert "has no dataset openai/gsm8" in told and "data of this machine is `files: [openai/gsm8/*.jsonl]`" in told


def test_a_hub_that_is_out_of_reach_stays_one_and_names_the_setting_for_a_mirror():
    for error in (said_of_model("microsoft/phi-2", CUT_OFF), said_of_data("openai/gsm8k", CUT_OFF)):
        assert isinstance(error, InfrastructureError)
        assert "FINETUNING_SOURCE_HUB names another address, such as a mirror's" in str(error)


def test_a_file_and_a_folder_that_are_there_are_called_what_they_are(here):
    (here / "rows.jsonl").touch()
    assert no_folder("./rows.jsonl") == "./rows.jsonl is a file and no folder"
    assert "./models is a folder. `hub` is a data set on the Hub" in str(said_of_data("./models", CUT_OFF))
