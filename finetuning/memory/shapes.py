"""A model with shapes and no data, and what a forward and a backward pass of it hold.

model = adapted_model(recipe, config, "sdpa", new_tokens=[])
with FakeTensorMode():
    leave_meta(model)
    passes(model, rows=8, length=128) -> Passes(kept=900_000_000, peak=914_000_000, passed=2_790_000_000)

transformers, bitsandbytes and peft build the model and run it, so that what each of them keeps for the backward pass
is counted, not assumed. No weights are read, and nothing of their size is allocated.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple
from weakref import finalize

import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import PeftModel, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear
from transformers.modeling_utils import local_torch_dtype
from transformers.models.falcon import modeling_falcon
from transformers.quantizers.base import get_keys_to_not_convert

from finetuning.base_model.loading import keep_trainable_on_cpu
from finetuning.lora.config import lora_config
from finetuning.memory.gpu_layers import FlashAttention, in_autocast
from finetuning.quantization import bitsandbytes_config
from finetuning.recipe.recipe import Recipe

# bitsandbytes: weights that share a scale, and scales that share a scale of theirs.
BLOCK, BLOCK_OF_SCALES = 64, 256
# Kernels that get a mask, and the name of what stands for the others.
MASKED, FLASH = ("sdpa", "eager"), "without_scores"
# So many layers are run where all are alike: what the last of them adds tells the rest. The first one differs from the
# others, as what it gets has another number format; of two layers it may be the one at which most is held.
FEW = 4
# Bytes of a block that malloc gives back at once (the most that its M_MMAP_THRESHOLD rises to); smaller ones it keeps.
LARGE = 32 * 2**20


class Passes(NamedTuple):
    """Bytes beside a model and its gradients, logits left out."""

    kept: int
    """What is held when the head's turn comes."""
    peak: int
    """The most that is held at once."""
    passed: int
    """What was made and freed again before the head's turn came, in blocks below LARGE."""


class Allocations(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is active, or given to `hold`: those that live now, the
    most that lived at once, and those that passed in blocks below LARGE.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = self.passed = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # torch's own shape of it is for bfloat16 alone; a CPU computes it in float32 as well.
        known = _grouped_product if function is torch.ops.aten._grouped_mm.default else function
        result = known(*args, **(kwargs or {}))
        self.hold(result)
        return result

    def hold(self, tensors: Any) -> None:
        """Count the tensors in this tree from now on, each memory once."""
        for tensor in tree_leaves(tensors):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage not in self._known:
                self._known[storage] = size = storage.nbytes()
                self.bytes += size
                self.peak = max(self.peak, self.bytes)
                finalize(storage, self._free, size).atexit = False

    def _free(self, size: int) -> None:
        self.bytes -= size
        self.passed += size if size < LARGE else 0


def _grouped_product(a: torch.Tensor, b: torch.Tensor, offsets: Any = None, *_: Any, **__: Any) -> torch.Tensor:
    """A tensor like the product of matrices for each expert: rows in groups, or blocks of matrices, on either side."""
    if a.dim() == b.dim() == 2:  # the groups are along the side that is summed over
        return a.new_empty(len(offsets), a.shape[0], b.shape[1])
    if a.dim() == b.dim() == 3:
        return a.new_empty(a.shape[0], a.shape[1], b.shape[2])
    return a.new_empty(a.shape[-2], b.shape[-1])


def size_of(tensors: Any) -> int:
    """Bytes of the memory of a tree of tensors, shared memory once."""
    allocations = Allocations()
    allocations.hold(tensors)
    return allocations.bytes


def adapted_model(recipe: Recipe, config: PreTrainedConfig, kernel: str, new_tokens: list[int]) -> PeftModel:
    """The model as training has it, quantized and with its adapter, on the meta device.

    Raises:
        FinetuningError: the recipe targets the head.
    """
    spec, config = recipe.base_model, deepcopy(config)
    vars(config).pop("quantization_config", None)
    # The real ones run on a GPU alone. An implementation without a mask function of its own is given no mask.
    AttentionInterface.register(FLASH, _flash)
    modeling_falcon.FALCON_ATTENTION_CLASSES[FLASH] = _FalconFlash
    # As in load_model: its linear layers are a subclass, which would not be quantized.
    modeling_falcon.FalconLinear = torch.nn.Linear  # pyright: ignore[reportAttributeAccessIssue]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config,
            dtype=getattr(torch, spec.dtype),
            attn_implementation=kernel if kernel in MASKED else FLASH,
            trust_remote_code=spec.trust_remote_code,
        )
        if spec.quantization:
            # How many outliers a matrix has is no matter of shapes.
            settings = bitsandbytes_config(spec.quantization, spec.dtype, outliers=False)
            # The new layers' biases are in torch's default format until they are loaded.
            with local_torch_dtype(getattr(torch, spec.dtype)):
                replace_with_bnb_linear(model, get_keys_to_not_convert(model), settings)
            setattr(model, f"is_loaded_in_{spec.quantization.bits}bit", True)
        rows = len(model.get_input_embeddings().weight)
        if any(token >= rows for token in new_tokens):
            model.resize_token_embeddings(max(new_tokens) + 1, mean_resizing=False)
        adapter = lora_config(recipe.lora, model, new_tokens, recipe.file)
        # How an adapter starts takes no memory, and may need the weights.
        adapter.init_lora_weights = True
        return get_peft_model(model, adapter, low_cpu_mem_usage=True)


def _flash(_: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **settings: Any) -> Any:
    """What a flash kernel keeps: what goes in and comes out, no scores, and no copies of keys that heads share."""
    query, key, value = (in_autocast(x) for x in (query, key, value))
    found: Any = FlashAttention.apply(query, key, value)
    return found.transpose(1, 2), None


class _FalconFlash(modeling_falcon.FalconAttention):
    """The same for Falcon, which has its kernels as classes."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, hidden_states: torch.Tensor, position_embeddings: Any = None, layer_past: Any = None, **settings: Any
    ) -> Any:
        split = self._split_heads(self.query_key_value(hidden_states))
        query, key, value = (heads.transpose(1, 2).contiguous() for heads in split)
        query, key = modeling_falcon.apply_rotary_pos_emb(query, key, *position_embeddings)
        if layer_past is not None:
            key, value = layer_past.update(key, value, self.layer_idx)
        found, _ = _flash(self, query, key, value)
        return self.dense(found.flatten(2)), None


def leave_meta(model: torch.nn.Module) -> None:
    """Put the model's tensors on the CPU, where FakeTensorMode gives them shapes alone, and what is trained in float32.

    A tensor that several modules share stays one.
    """
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in tensors.items():
                if old is not None:
                    if id(old) not in made:
                        made[id(old)] = _made_like(module, old), old
                    tensors[name] = made[id(old)][0]  # pyright: ignore[reportArgumentType]
    keep_trainable_on_cpu(model)


def _made_like(module: torch.nn.Module, old: torch.Tensor) -> torch.Tensor:
    if old is getattr(module, "weight", None) and isinstance(module, Linear4bit):
        return _weight_in_4_bits(module)
    if old is getattr(module, "weight", None) and isinstance(module, Linear8bitLt):
        return _weight_in_8_bits(module)
    new = torch.empty(old.shape, dtype=torch.float32 if old.requires_grad else old.dtype)
    return torch.nn.Parameter(new, old.requires_grad) if isinstance(old, torch.nn.Parameter) else new


def _weight_in_4_bits(layer: Any) -> torch.nn.Parameter:
    """As bitsandbytes' quantize_4bit leaves it: two weights a byte, and a scale for each block of them."""
    shape, old = torch.Size((layer.out_features, layer.in_features)), layer.weight
    blocks = -(-shape.numel() // BLOCK)
    scales: dict[str, Any] = {"absmax": torch.empty(blocks)}
    if old.compress_statistics:
        nested = QuantState(
            torch.empty(-(-blocks // BLOCK_OF_SCALES)), code=torch.empty(256), blocksize=256, dtype=torch.float32
        )
        scales = {"absmax": torch.empty(blocks, dtype=torch.uint8), "offset": torch.empty(()), "state2": nested}
    new: Any = torch.nn.Parameter(torch.empty(-(-shape.numel() // 2), 1, dtype=torch.uint8), requires_grad=False)
    new.quant_state = layer.quant_state = QuantState(
        **scales,
        shape=shape,
        code=torch.empty(16),
        blocksize=BLOCK,
        quant_type=old.quant_type,
        dtype=layer.compute_dtype,
    )
    return new


def _weight_in_8_bits(layer: Any) -> torch.nn.Parameter:
    """As bitsandbytes' int8_vectorwise_quant leaves it: a byte for each weight, and a scale for each output."""
    data = torch.empty(layer.out_features, layer.in_features, dtype=torch.int8)
    new: Any = torch.nn.Parameter(data, requires_grad=False)
    new.CB, new.SCB = new.data, torch.empty(layer.out_features)
    return new


def tensors_of(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """All tensors that live with the model: parameters, their gradients, buffers, and scales of quantized weights."""
    yield from model.buffers()
    for parameter in model.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
    for module in model.modules():
        if isinstance(module, Linear4bit):
            state: Any = module.quant_state
            for part in (state, state.state2):
                yield from (x for x in vars(part).values() if isinstance(x, torch.Tensor)) if part else ()
        elif isinstance(module, Linear8bitLt):
            weight: Any = module.weight
            yield weight.SCB if module.state.SCB is None else module.state.SCB


def passes(model: Any, rows: int, length: int, masked: bool = True, gradients: bool = True) -> Passes:
    """What a forward pass over so many rows of so many tokens holds, and with `gradients` a backward pass after it.

    Args:
        masked: whether attention gets a mask, as it does where rows are padded.
    """
    place = _stack_of_layers(model)
    if place is None:
        return one_pass(model, rows, length, masked, gradients)
    with first_layers(model, FEW - 1):
        fewer = one_pass(model, rows, length, masked, gradients)
    with first_layers(model, FEW):
        few = one_pass(model, rows, length, masked, gradients)
    left_out = len(getattr(*place)) - FEW
    return Passes(*(b + left_out * (b - a) for a, b in zip(fewer, few, strict=True)))


@contextmanager
def first_layers(model: Any, count: int) -> Iterator[None]:
    """Leave all layers but the first `count` out within the block, where all are alike."""
    place = _stack_of_layers(model)
    if place is None:
        yield
        return
    layers = getattr(*place)
    try:
        setattr(*place, layers[:count])
        yield
    finally:
        setattr(*place, layers)


def _stack_of_layers(model: Any) -> tuple[torch.nn.Module, str] | None:
    """Where the layers are; None for too few of them to leave some out, or for layers that differ in their shapes."""
    count = model.config.get_text_config().num_hidden_layers
    for parent in model.modules():
        for name, layers in parent.named_children():
            if isinstance(layers, torch.nn.ModuleList) and len(layers) == count > FEW:
                shapes = {tuple((key, p.shape) for key, p in layer.named_parameters()) for layer in layers}
                return (parent, name) if len(shapes) == 1 else None
    return None


def one_pass(model: Any, rows: int, length: int, masked: bool = True, gradients: bool = True) -> Passes:
    """What `passes` says, with all layers run.

    Gradients that are there before are no part of it; those that are not are made on the way, and gone in the end.
    """
    ids = torch.zeros(rows, length, dtype=torch.long)
    mask = torch.ones(rows, 1, length, length, dtype=torch.bool) if masked else None
    model.train(gradients)
    memory, marks = Allocations(), []
    memory.hold([*tensors_of(model)])
    start, without = memory.bytes, [p for p in model.parameters() if p.requires_grad and p.grad is None]

    def first_position(head: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        marks[:] = memory.bytes - start, memory.passed
        return given[0][:, :1], *given[1:]

    hook = model.get_output_embeddings().register_forward_pre_hook(first_position)
    try:
        with memory, torch.set_grad_enabled(gradients):
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        if gradients:
            loss = logits.float().sum()
            with memory:
                loss.backward()
    finally:
        hook.remove()
        for parameter in without:
            parameter.grad = None
    kept, passed = marks
    return Passes(kept, memory.peak - start, passed)


@contextmanager
def mixed_precision(dtype: str) -> Iterator[None]:
    """Compute in that format within the block; peft converts nothing of what an adapter gets."""
    # peft asks for a GPU's autocast alone; on a CPU training tells it (leave_casts_to_autocast).
    before = torch.is_autocast_enabled("cuda")
    torch.set_autocast_enabled("cuda", True)
    try:
        with torch.autocast("cpu", getattr(torch, dtype)):
            yield
    finally:
        torch.set_autocast_enabled("cuda", before)
