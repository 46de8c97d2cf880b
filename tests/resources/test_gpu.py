"""The GPU resource: what a machine gets of what a recipe asks for."""

import pytest

from finetuning.errors import FinetuningError
from finetuning.recipe import BaseModelSpec
from resources.gpu import Gpu, Machine, detect, obstacle

H100 = Machine("cuda", "NVIDIA H100", (9, 0), 80 << 30, bf16=True)
T4 = Machine("cuda", "Tesla T4", (7, 5), 15 << 30, bf16=False)


def base_model(**changes):
    return BaseModelSpec.model_validate({"repo": "someone/model", **changes})


def test_nf4_with_double_quantization_becomes_a_bitsandbytes_configuration():
    config = Gpu().quantization_config(base_model(quantization={"bits": 4, "type": "nf4", "double": True}))
    assert config is not None
    assert (config.load_in_4bit, config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == (True, "nf4", True)


def test_eight_bits_become_a_bitsandbytes_configuration():
    config = Gpu().quantization_config(base_model(quantization={"bits": 8}))
    assert config is not None and config.load_in_8bit and not config.load_in_4bit


def test_no_quantization_is_no_configuration():
    assert Gpu().quantization_config(base_model(quantization=None)) is None


@pytest.mark.skipif(detect().device == "cuda", reason="this machine has a GPU")
def test_a_required_gpu_that_is_absent_is_an_error_that_says_what_was_found():
    with pytest.raises(FinetuningError, match=r"gpu\.require: cuda, but torch .* sees no GPU; found: CPU with"):
        Gpu(require="cuda").machine()


@pytest.mark.skipif(detect().device == "cuda", reason="this machine has a GPU")
def test_flash_attention_is_passed_over_on_a_cpu_with_its_reason():
    choice = Gpu().attention(base_model(attention=["flash_attention_2", "sdpa"]))
    assert choice.kernel == "sdpa"
    assert choice.passed_over == {"flash_attention_2": "needs a CUDA GPU, and none was found"}


@pytest.mark.skipif(detect().device == "cuda", reason="this machine has a GPU")
def test_no_kernel_that_runs_here_is_an_error_with_every_reason():
    with pytest.raises(FinetuningError, match=r"flash_attention_2 needs a CUDA GPU.*Add sdpa"):
        Gpu().attention(base_model(attention=["flash_attention_2"]))


def test_an_old_gpu_is_too_old_for_flash_attention():
    assert obstacle("flash_attention_2", T4) == "needs compute capability 8.0, and Tesla T4 has 7.5"


def test_sdpa_runs_everywhere():
    assert obstacle("sdpa", T4) is None and obstacle("sdpa", H100) is None
