"""The shell lines on a card: with them, and with nothing else, its code reads from the hub where the repo is."""

import json

import pytest
from huggingface_hub import HfApi
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetuning.hub.endpoints import Endpoints, code_source, shell_lines
from finetuning.hub.loading_code import adapter_code
from finetuning.settings import LOCAL, PUBLIC_HUB
from resources.hub_server.local import local_hub
from tests.card_code import as_printed
from tests.finetuning.hub.test_loading_code import recipe_of
from tests.native_templates import ZEPHYR
from tests.tiny_models import save_tiny_model
from tests.warm_server import ordinary_environment

BASE, ADAPTER = "local/base", "local/adapter"


def published(folder, source, hub):
    """A tiny base model is on the one hub, and a private adapter on it on the other, or the same, hub."""
    base, adapter = save_tiny_model("smollm2-135m", folder / "base", ZEPHYR), folder / "adapter"
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2)).save_pretrained(adapter)
    AutoTokenizer.from_pretrained(base).save_pretrained(adapter)
    there, here = (HfApi(endpoint=one.endpoint, token=one.token) for one in (source, hub))
    there.create_repo(BASE)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config |= {
        "base_model_name_or_path": BASE,
        "revision": there.upload_folder(repo_id=BASE, folder_path=base).oid,
    }
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    here.create_repo(ADAPTER, private=True)
    here.upload_folder(repo_id=ADAPTER, folder_path=adapter, ignore_patterns="README.md")


@pytest.mark.parametrize("two", [False, True], ids=["one hub", "two hubs"])
def test_the_code_on_a_card_runs_after_its_shell_lines(tmp_path, two):
    with local_hub(tmp_path / "hub") as hub, local_hub(tmp_path / ("source" if two else "hub")) as source:
        published(tmp_path, source, hub)
        endpoints = Endpoints.of(LOCAL, source.endpoint if two else LOCAL)
        shell = shell_lines(endpoints, ADAPTER, "main")
        code = adapter_code(recipe_of(True), code_source(endpoints, ADAPTER), "main", "</s>", quantize=True)
        assert hub.token not in shell + code and hub.endpoint not in shell + code
        (tmp_path / "run").mkdir()
        environment = {**ordinary_environment(), "FINETUNING_HUB_STATE": str(tmp_path / "hub")}
        ran = as_printed(shell, code, tmp_path / "run", environment)
    assert ran.returncode == 0, ran.stdout[-3000:]


def test_a_repo_on_the_public_hub_needs_no_lines():
    assert shell_lines(Endpoints.of(f"{PUBLIC_HUB}/", "https://mirror.example.org"), "me/phi-2", "0" * 16) == ""


def test_a_base_model_on_the_public_hub_is_read_from_there_with_no_token_of_another():
    endpoints = Endpoints.of("https://hub.example.org/", PUBLIC_HUB)
    lines = shell_lines(endpoints, "lab/phi-2", "0" * 16)
    assert lines.split() == [
        *("HF_ENDPOINT=https://hub.example.org", "\\", "hf", "download", "lab/phi-2"),
        *("--revision", "0" * 16, "--local-dir", "./phi-2"),
    ]
    assert code_source(endpoints, "lab/phi-2") == "./phi-2"
