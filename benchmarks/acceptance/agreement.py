"""NF4, the attention kernels and the loss compute on a GPU what they do on a CPU, up to the number format."""

from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import add_fused_lm_head

from benchmarks.acceptance.findings import Device, Findings, run
from benchmarks.acceptance.tiny import rows
from finetuning.base_model import varlen
from finetuning.base_model.rows_apart import keeps_rows_apart
from finetuning.fused.layers import fuse_layers
from finetuning.recipe.base_model import KEEP_ROWS_APART
from finetuning.training.supervised_loss import loss_in_tiles, read_by, supervised_loss
from resources.gpu import detect, obstacle

KERNELS = ("sdpa", "varlen", "flash_attention_2", "flash_attention_3", "flash_attention_4")
# Of the length of what is compared: bfloat16 has 8 bits, and errors of some layers add up.
ROUNDING = 0.03


def main(findings: Findings, folder: Path, device: Device, shape: str) -> None:
    """Try everything, the quantization first."""
    torch.manual_seed(0)
    with findings.trying("NF4: weights"):
        quantized_weights(findings, device)
    with findings.trying("NF4: products and gradients"):
        quantized_products(findings, device)
    with findings.trying("layers in training"):
        layers_in_training(findings, device)
    dtype = torch.bfloat16 if detect().bf16 else torch.float32
    plain = model_of("sdpa", "cpu", torch.float32)
    for kernel in KERNELS:
        if reason := obstacle(kernel, detect()):
            findings.add(kernel, passed=None, reason=reason)
            continue
        with findings.trying(kernel):
            compare(findings, kernel, device, dtype, plain)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """How far one is from the other, as a share of the other's length."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((found - expected).norm() / expected.norm())


def quantized_weights(findings: Findings, device: str) -> None:
    """Quantize a matrix there and here, and bring it back there and here."""
    weights = torch.randn(512, 1024, dtype=torch.bfloat16)
    (here, state), (there, other) = (
        quantize_4bit(weights.to(place), quant_type="nf4", compress_statistics=True) for place in ("cpu", device)
    )
    same = float((here == there.cpu()).float().mean())
    back = distance(dequantize_4bit(there, other), dequantize_4bit(here, state))
    # Where a number is half-way between two of the sixteen, either may be taken.
    findings.add("NF4: weights", passed=same > 0.999 and back < 0.01, equal_bytes=same, error=back)


def quantized_products(findings: Findings, device: str) -> None:
    """Multiply with such a matrix, and go backward through it."""
    layer: Any = Linear4bit(1024, 512, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    layer = layer.to(device)
    whole = dequantize_4bit(layer.weight.data, layer.weight.quant_state).double().cpu()
    given: Any = torch.randn(64, 1024, dtype=torch.bfloat16, device=device, requires_grad=True)
    found = layer(given)
    found.sum().backward()
    plain = given.detach().double().cpu() @ whole.T
    errors = distance(found, plain), distance(given.grad, whole.sum(dim=0).expand(64, -1))
    findings.add("NF4: products and gradients", passed=max(errors) < ROUNDING, product=errors[0], gradient=errors[1])


def layers_in_training(findings: Findings, device: str) -> None:
    """Train adapters with dropout, and norms, as peft and transformers do and as here, by the same random numbers."""
    adapter = LoraConfig(r=8, lora_dropout=0.2, target_modules="all-linear", init_lora_weights=False)
    # The same weights twice: model_of begins with a seed.
    theirs, ours = (get_peft_model(model_of("sdpa", device, torch.float32), adapter).train() for _ in range(2))
    fuse_layers(ours, on_cpu=False)
    ids, found = torch.randint(0, 512, (2, 64), device=device), []
    for each in (theirs, ours):
        torch.manual_seed(2)
        loss = each(input_ids=ids, labels=ids).loss
        loss.backward()
        found.append([loss, *(p.grad for p in each.parameters() if p.requires_grad)])
    worst = max(distance(one, other) for one, other in zip(found[1], found[0], strict=True))
    findings.add("layers in training", passed=worst < 1e-3, error=worst)


def model_of(kernel: str, device: str, dtype: torch.dtype) -> Any:
    """The same small model for every kernel; its heads share keys as those of large ones do."""
    varlen.register()
    torch.manual_seed(1)
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "vocab_size": 512}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.1}
    model: Any = LlamaForCausalLM(LlamaConfig(**sizes, **heads))
    model.to(device, dtype)
    model.config._attn_implementation = kernel
    add_fused_lm_head(model)
    return model.train()


def compare(findings: Findings, kernel: str, device: str, dtype: torch.dtype, plain: Any) -> None:
    """Compare loss and gradients of padded rows and, where the kernel keeps them apart, of rows end to end."""
    model = model_of(kernel, device, dtype)
    padded = dict(DataCollatorForLanguageModeling(pad_token_id=0)(rows()))
    plain.zero_grad()
    expected, count = supervised_loss(plain, plain.get_output_embeddings(), padded)
    expected.backward()
    ways = {"padded rows": padded}
    if kernel in KEEP_ROWS_APART:
        findings.add(f"{kernel}, rows stay apart", passed=keeps_rows_apart(model))
        ways["rows end to end"] = dict(DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows()))
    for way, batch in ways.items():
        inputs = {name: x.to(device) if torch.is_tensor(x) else x for name, x in batch.items()}
        model.zero_grad()
        total, found = loss_in_tiles(model, inputs)
        total.backward()
        errors = {"loss": abs(float(total) / float(expected) - 1)}
        errors["gradient"] = max(
            distance(one.grad, other.grad) for one, other in zip(model.parameters(), plain.parameters(), strict=True)
        )
        right = int(found) == int(count) and errors["loss"] < ROUNDING and errors["gradient"] < 3 * ROUNDING
        read = sorted(read_by(model, inputs))
        findings.add(f"{kernel}, {way}", passed=right, dtype=str(dtype), read=read, **errors)


if __name__ == "__main__":
    run("agreement", main)
