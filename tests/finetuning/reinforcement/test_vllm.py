"""Answers that vLLM draws: what it is told and, where one is installed that this machine can run, a training by it."""

from copy import deepcopy
from importlib.util import find_spec

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.reinforcement import vllm as ours
from finetuning.reinforcement.kind import any_kind_of, grpo_config
from finetuning.reinforcement.vllm import merged_parameters
from finetuning.training.job import BatchSize
from tests.finetuning.reinforcement.group_jobs import SETTINGS, questions, trained
from tests.finetuning.training.adapter_jobs import job_of
from tests.native_templates import Native
from tests.tiny_models import ZEPHYR, save_tiny_model, talkative

INSTALLED = find_spec("vllm") is not None
# Answers end with another token than the one with which the model's own files say that texts end.
ENDING = Native(ZEPHYR.replace("eos_token", "'<|end|>'"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    # vLLM's attention on a CPU takes heads of 32 numbers and more.
    questions(folder, talkative(save_tiny_model("smollm2-135m", folder / "tiny", ENDING, head_dim=32)))
    return folder


def job(folder, **training):
    return job_of(folder, folder / "tiny", {"r": 4}, SETTINGS | training, max_length=64)


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
def test_where_it_is_not_installed_that_is_said_before_the_model_is_loaded(folder):
    with pytest.raises(InfrastructureError, match=r"training\.use_vllm: vLLM is not installed"):
        any_kind_of(job(folder, use_vllm=True))


def test_tokens_that_its_copy_of_the_model_has_no_rows_for_are_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(ours, "find_spec", lambda name: object())
    monkeypatch.setattr(ours, "is_vllm_available", lambda: True)
    assert any_kind_of(job(folder, use_vllm=True))
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.add_tokens(["<more>"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    asked = job(folder, use_vllm=True).model_copy(update={"chat_dataset": tmp_path})
    with pytest.raises(FinetuningError, match="tokens that are new to the base model, and vLLM has no rows for them"):
        any_kind_of(asked)


ADAPTERS = {
    "of products": {},
    "with magnitudes": {"use_dora": True},
    "with its own bias": {"lora_bias": True, "target_modules": ["q_proj", "down_proj"]},
    "and whole layers": {"modules_to_save": ["lm_head"]},
    "of embeddings": {"target_modules": ["embed_tokens", "v_proj"]},
}


@pytest.mark.parametrize("case", ADAPTERS)
def test_weights_are_handed_on_with_the_adapter_in_them_and_are_bit_for_bit_the_same_after_it(tmp_path, case):
    settings = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}
    folder = save_tiny_model("smollm2-135m", tmp_path, ZEPHYR, **settings)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    names = dict(base.named_parameters()).keys()
    config = LoraConfig(**{"r": 4, "target_modules": "all-linear", "init_lora_weights": False, **ADAPTERS[case]})
    model = get_peft_model(base, config)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    wanted = dict(deepcopy(model).merge_and_unload().named_parameters())
    found = {name: parameter.clone() for name, parameter in merged_parameters(model)}
    assert found.keys() == names == wanted.keys()
    assert [name for name in names if not torch.equal(found[name], wanted[name])] == []
    after = dict(model.named_parameters())
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert [name for name in before if before[name].dtype != after[name].dtype] == []


class OfShape:
    def __init__(self, folder):
        self.config = AutoConfig.from_pretrained(folder / "tiny")


def test_trl_is_told_how_long_answers_are_and_from_which_ratio_on_none_is_learned_from(folder):
    told = grpo_config(job(folder, use_vllm=True, vllm_gpu_memory_utilization=0.5), BatchSize(4, 2), OfShape(folder))
    assert (told.use_vllm, told.vllm_mode, told.vllm_gpu_memory_utilization) == (True, "colocate", 0.5)
    assert told.vllm_max_model_length == 64 + 12
    assert told.vllm_importance_sampling_correction and told.vllm_importance_sampling_mode == "sequence_mask"
    assert told.vllm_importance_sampling_clip_max == 3.0 and not told.trust_remote_code
    trusted = {"model_kwargs": job(folder).model_kwargs | {"trust_remote_code": True}}
    asked = job(folder, use_vllm=True).model_copy(update=trusted)
    assert grpo_config(asked, BatchSize(4, 2), OfShape(folder)).trust_remote_code
    short = OfShape(folder)
    short.config.max_position_embeddings = 70
    assert grpo_config(job(folder, use_vllm=True), BatchSize(4, 2), short).vllm_max_model_length == 70
    assert not grpo_config(job(folder), BatchSize(4, 2), OfShape(folder)).use_vllm


@pytest.mark.skipif(not INSTALLED, reason="needs vLLM")
def test_its_answers_are_learned_from_and_its_likelihoods_are_about_those_of_the_model(folder, tmp_path, monkeypatch):
    from trl.generation.vllm_generation import VLLMGeneration
    from vllm.model_executor.layers import utils

    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    if not torch.cuda.is_available():
        # On a CPU vLLM packs weights in another order, once, and could be given none later.
        plain = torch.nn.functional.linear
        monkeypatch.setattr(
            utils, "dispatch_cpu_unquantized_gemm", lambda layer, **of: setattr(layer, "cpu_linear", plain)
        )
    drawn, whole = [], VLLMGeneration.generate

    def generate(self, *args, **settings):
        found = whole(self, *args, **settings)
        drawn.extend(found[1])
        return found

    monkeypatch.setattr(VLLMGeneration, "generate", generate)
    # Tokens are drawn about evenly, so that some are the last one.
    training = {"use_vllm": True, "temperature": 2.0, "max_completion_length": 48, "max_steps": 6}
    summary = trained(folder, folder / "tiny", training, output=tmp_path / "out", max_length=64)
    curve = summary["reward_curve"]
    assert len(curve) == 6 and all(1 <= point["length"] <= 48 for point in curve)
    assert len({point["reward"] for point in curve}) > 1
    # In the last step as in the first: it has the weights of each step.
    assert all(0 < point["mismatch"] < 0.08 for point in curve), [point["mismatch"] for point in curve]
    tokenizer = AutoTokenizer.from_pretrained(folder / "tiny")
    stop, other = tokenizer.convert_tokens_to_ids("<|end|>"), tokenizer.eos_token_id
    ended = [list(ids) for ids in drawn if len(ids) < 48]
    assert ended and {ids[-1] for ids in ended} == {stop}
    assert all(stop not in ids[:-1] for ids in drawn) and any(other in ids for ids in drawn)
