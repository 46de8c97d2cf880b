"""Answers that vLLM draws: what it is told and, where one is installed that this machine can run, a training by it."""

from importlib.util import find_spec

import pytest
from transformers import AutoConfig

from finetuning.errors import InfrastructureError
from finetuning.reinforcement.kind import any_kind_of, grpo_config
from finetuning.training.job import BatchSize
from tests.finetuning.reinforcement.group_jobs import SETTINGS, questions, trained
from tests.finetuning.training.adapter_jobs import job_of
from tests.tiny_models import ZEPHYR, save_tiny_model, talkative

INSTALLED = find_spec("vllm") is not None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    # vLLM's attention on a CPU takes heads of 32 numbers and more.
    questions(folder, talkative(save_tiny_model("smollm2-135m", folder / "tiny", ZEPHYR, head_dim=32)))
    return folder


def job(folder, **training):
    return job_of(folder, folder / "tiny", {"r": 4}, SETTINGS | training, max_length=64)


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
def test_where_it_is_not_installed_that_is_said_before_the_model_is_loaded(folder):
    with pytest.raises(InfrastructureError, match=r"training\.use_vllm: vLLM is not installed"):
        any_kind_of(job(folder, use_vllm=True))


class OfShape:
    def __init__(self, folder):
        self.config = AutoConfig.from_pretrained(folder / "tiny")


def test_trl_is_told_how_long_answers_are_and_from_which_ratio_on_none_is_learned_from(folder):
    told = grpo_config(job(folder, use_vllm=True, vllm_gpu_memory_utilization=0.5), BatchSize(4, 2), OfShape(folder))
    assert (told.use_vllm, told.vllm_mode, told.vllm_gpu_memory_utilization) == (True, "colocate", 0.5)
    assert told.vllm_max_model_length == 64 + 12
    assert told.vllm_importance_sampling_correction and told.vllm_importance_sampling_mode == "sequence_mask"
    assert told.vllm_importance_sampling_clip_max == 3.0
    short = OfShape(folder)
    short.config.max_position_embeddings = 70
    assert grpo_config(job(folder, use_vllm=True), BatchSize(4, 2), short).vllm_max_model_length == 70
    assert not grpo_config(job(folder), BatchSize(4, 2), OfShape(folder)).use_vllm


@pytest.mark.skipif(not INSTALLED, reason="needs vLLM")
def test_its_answers_are_learned_from_and_its_likelihoods_are_about_those_of_the_model(folder, tmp_path, monkeypatch):
    import torch
    from vllm.model_executor.layers import utils

    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    if not torch.cuda.is_available():
        # On a CPU vLLM packs weights in another order, once, and could be given none later.
        plain = torch.nn.functional.linear
        monkeypatch.setattr(
            utils, "dispatch_cpu_unquantized_gemm", lambda layer, **of: setattr(layer, "cpu_linear", plain)
        )
    summary = trained(folder, folder / "tiny", {"use_vllm": True}, output=tmp_path / "out", max_length=64)
    curve = summary["reward_curve"]
    assert len(curve) == 4 and all(1 <= point["length"] <= 12 for point in curve)
    assert len({point["reward"] for point in curve}) > 1
    # In the last step as in the first: it has the weights of each step.
    assert all(0 < point["mismatch"] < 0.08 for point in curve), [point["mismatch"] for point in curve]
