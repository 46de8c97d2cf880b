"""Root-mean-square norms by torch's own kernel."""

from copy import deepcopy

import pytest
import torch
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNorm, Qwen3NextRMSNormGated

from finetuning.fused.norms import fuse_norms, is_rms_norm


@pytest.mark.parametrize("kind", [MistralRMSNorm, GptOssRMSNorm])
def test_their_numbers_and_gradients_are_transformers(kind):
    torch.manual_seed(0)
    norm = kind(64, eps=1e-5)
    torch.nn.init.uniform_(norm.weight, 0.5, 2)
    fused = deepcopy(norm)
    fuse_norms(fused)
    found = []
    for each in (norm, fused):
        x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        (each(x) * torch.linspace(-1, 1, 64)).sum().backward()
        found.append((each(x), x.grad, each.weight.grad))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_mixed_precision_leaves_them_their_format():
    norm = MistralRMSNorm(64).bfloat16()
    exact, theirs = deepcopy(norm).float(), deepcopy(norm)
    fuse_norms(norm)
    x = torch.randn(7, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x)
    assert found.dtype == torch.bfloat16
    expected = exact(x.float())
    assert (found - expected).abs().max() <= (theirs(x) - expected).abs().max()


def test_a_model_that_answers_has_transformers_numbers():
    norm = MistralRMSNorm(64).bfloat16().eval()
    theirs, x = deepcopy(norm), torch.randn(7, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    fuse_norms(norm)
    assert torch.equal(norm(x), theirs(x))


class OtherRMSNorm(MistralRMSNorm):
    """Another formula by the same name."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states) + 1


@pytest.mark.parametrize("kind", [GemmaRMSNorm, Qwen3NextRMSNorm, Qwen3NextRMSNormGated, OtherRMSNorm, torch.nn.Linear])
def test_what_computes_otherwise_stays_as_it_is(kind):
    assert not is_rms_norm(kind)
