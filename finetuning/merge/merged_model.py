"""The adapter merged into its base model: one model of plain weights, and how near its answers are to the two's.

merge(Parts(base_model, adapter, chat_dataset, model_kwargs), out, "phi-2", MergeSpec(), progress)
-> MergedSummary(agreement=0.9988, kl=0.0004, positions=1712, parameters=134515008, …)

Weights are merged as training saw them: quantized, and brought out of quantization again. An adapter has learned to
make up for what quantization took; on the weights as they once were it would make up for it twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from peft import PeftModel
from torch.nn.functional import kl_div
from transformers import AutoTokenizer, GgufConfig, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from finetuning.base_model.loading import answer_on_cpu, freeing_models, load_model
from finetuning.base_model.quantized_base_model import MIB
from finetuning.chat.template import stop_token
from finetuning.errors import FinetuningError
from finetuning.lora.embeddings import give_rows
from finetuning.lora.loading import load_adapter, load_base
from finetuning.merge.agreement import Agreement, GgufSummary, MergedSummary
from finetuning.merge.gguf_file import write_gguf
from finetuning.progress import Progress
from finetuning.recipe.merge import MergeSpec
from finetuning.tokens import NOT_SUPERVISED

PROBES = 32  # eval rows that both models read
SHARD = "5GB"


@dataclass(frozen=True)
class Parts:
    """What is merged: folders of base model and adapter, and of the data set on whose eval rows both are compared."""

    base_model: Path
    adapter: Path
    chat_dataset: Path
    model_kwargs: dict[str, Any]
    """How the base model is loaded."""


def merge(parts: Parts, out: Path, name: str, spec: MergeSpec, progress: Progress) -> MergedSummary:
    """Write the merged model with its tokenizer into `out`, read it back, and compare it with the parts.

    The GGUF file, where the recipe asks for one, is written and compared too.

    Args:
        name: of the recipe, and of that file.

    Raises:
        FinetuningError: the adapter is not whole, changes nothing, or cannot be merged; a GGUF file cannot hold it.
    """
    model_kwargs = parts.model_kwargs
    progress.update("merging")
    tokenizer = AutoTokenizer.from_pretrained(parts.adapter, trust_remote_code=model_kwargs["trust_remote_code"])
    parameters, size_mb = write_merged(parts, tokenizer, out, spec)
    probes = probes_of(parts.chat_dataset / "eval.parquet")
    progress.update("comparing the merged model with the adapter")
    kwargs = model_kwargs | {"dtype": spec.dtype}
    # Each is loaded once the one before is gone: two of them need not have room.
    first = logits_by(lambda: load_beside(parts, tokenizer, probes[0]["input_ids"]), probes)
    second = logits_by(lambda: load_model(out, **kwargs), probes)
    gguf = None
    if spec.gguf:
        progress.update("writing the GGUF file, and comparing it with the adapter")
        file = out / f"{name}.{spec.gguf}.gguf"
        write_gguf(out, file, spec.gguf)
        third = logits_by(lambda: load_gguf(file, **kwargs), probes)
        size = round(file.stat().st_size / MIB, 1)
        gguf = GgufSummary(file=file.name, size_mb=size, **dict(compare(first, third)))
    return MergedSummary(
        parameters=parameters, size_mb=size_mb, dtype=spec.dtype, gguf=gguf, **dict(compare(first, second))
    )


@freeing_models()
def write_merged(parts: Parts, tokenizer: PreTrainedTokenizerBase, out: Path, spec: MergeSpec) -> tuple[int, float]:
    """Write the merged model with its tokenizer into `out`, and return its number of weights and its size in MiB.

    Raises:
        FinetuningError: a weight is not a finite number afterwards.
    """
    dtype = getattr(torch, spec.dtype)
    merged = merged_model(parts.base_model, parts.adapter, tokenizer, dtype, parts.model_kwargs)
    merged.generation_config.eos_token_id = stop_token(tokenizer)
    merged.save_pretrained(out, max_shard_size=SHARD)
    tokenizer.save_pretrained(out)
    return merged.num_parameters(), round(merged.get_memory_footprint() / MIB, 1)


def load_beside(parts: Parts, tokenizer: PreTrainedTokenizerBase, prompt_ids: list[int]) -> Any:
    """The base model with the adapter beside it, ready to answer."""
    base = load_base(tokenizer, parts.base_model, parts.model_kwargs, str(parts.adapter))
    model = load_adapter(base, parts.adapter, prompt_ids)
    answer_on_cpu(model)
    return model


def merged_model(
    base_model: Path,
    adapter: Path,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype,
    model_kwargs: dict[str, Any],
) -> Any:
    """The base model with plain weights of that format, to which those of the adapter are added.

    Raises:
        FinetuningError: a weight is not a finite number afterwards.
    """
    model = load_model(base_model, **model_kwargs)
    # GPT-2's own layers keep their weights the other way round than bitsandbytes does, and so do its files.
    turned = [name for name, module in model.named_modules() if getattr(module, "source_cls", None) is Conv1D]
    if getattr(model, "is_quantized", False):
        logging.set_verbosity_error()  # it warns of what is wanted here
        model = model.dequantize(dtype=dtype)
        # How quantized weights were read; transformers 5.23 would try to undo that when these are saved.
        model._weight_conversions = None
    model = model.to(dtype)
    give_rows(model, tokenizer, base_model, str(adapter), model_kwargs["trust_remote_code"])
    try:
        merged: Any = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)  # pyright: ignore[reportCallIssue]
    except ValueError as error:
        raise FinetuningError(f"{adapter}: the adapter cannot be merged: {error}") from error
    for name in turned:
        layer = merged.get_submodule(name)
        layer.weight.data = layer.weight.data.T.contiguous()
    return merged


def load_gguf(file: Path, **kwargs: Any) -> Any:
    """The model in that file with plain weights, as transformers reads it."""
    return load_model(file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), **kwargs)


def probes_of(path: Path) -> list[dict[str, list[int]]]:
    """The first eval rows: `input_ids` and `labels`."""
    return pq.read_table(path, columns=["input_ids", "labels"]).slice(0, PROBES).to_pylist()


def logits_of(model: Any, probes: list[dict[str, list[int]]]) -> list[torch.Tensor]:
    """Logits (positions, vocabulary) of each row, at the positions whose next token is supervised."""
    found = []
    for row in probes:
        supervised = torch.tensor(row["labels"][1:]) != NOT_SUPERVISED
        with torch.inference_mode():
            logits = model(torch.tensor([row["input_ids"]], device=model.device)).logits[0, :-1]
        found.append(logits[supervised.to(logits.device)].float().cpu())
    return found


@freeing_models()
def logits_by(load: Callable[[], Any], probes: list[dict[str, list[int]]]) -> list[torch.Tensor]:
    """The same by the model that `load` gives, which is gone afterwards."""
    return logits_of(load(), probes)


def compare(first: list[torch.Tensor], second: list[torch.Tensor]) -> Agreement:
    """Return how near the second model's logits come to the first one's."""
    same = kl = positions = 0.0
    for ours, theirs in zip(first, second, strict=True):
        same += (ours.argmax(1) == theirs.argmax(1)).sum().item()
        kl += kl_div(theirs.log_softmax(1), ours.log_softmax(1), reduction="sum", log_target=True).item()
        positions += len(ours)
    return Agreement(agreement=same / positions, kl=kl / positions, positions=int(positions))
