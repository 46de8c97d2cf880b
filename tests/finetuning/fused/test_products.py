"""The adapter's products in training: peft's numbers, and less that is kept for the backward pass."""

from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import LoraConfig, get_peft_model
from torch.autograd.graph import saved_tensors_hooks

from finetuning.fused.products import CHANCES, fuse_products, kept_of

ROWS, INPUTS, OUTPUTS, RANK = (3, 10), 128, 192, 8
LAYERS = {
    "in full": lambda: torch.nn.Linear(INPUTS, OUTPUTS),
    "without a bias": lambda: torch.nn.Linear(INPUTS, OUTPUTS, bias=False),
    "in 4 bits": lambda: Linear4bit(INPUTS, OUTPUTS, compute_dtype=torch.float32, quant_type="nf4"),
    "in 8 bits": lambda: Linear8bitLt(INPUTS, OUTPUTS, has_fp16_weights=False),
}


class Several(torch.nn.Module):
    """Layers that read the same inputs, as those for queries, keys and values do."""

    def __init__(self, kind: str, count: int = 1) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(LAYERS[kind]() for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum(layer(x) for layer in self.layers)  # pyright: ignore[reportReturnType]


def adapted(kind: str, count: int = 1, **settings: Any) -> Any:
    """An adapter that has learned something, on layers of that kind, to be trained."""
    torch.manual_seed(0)
    model = Several(kind, count).to("cpu")
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = kind == "in 4 bits", kind == "in 8 bits"
    settings = {"lora_dropout": 0.3, "lora_alpha": 24, **settings}
    names = [f"layers.{number}" for number in range(count)]
    found = get_peft_model(model, LoraConfig(r=RANK, target_modules=names, **settings))
    for name, parameter in found.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return found.train()


def both(model: Any, on_cpu: bool) -> tuple[Any, Any]:
    """The model as peft computes it, and as it is trained here."""
    fused = deepcopy(model)
    fuse_products(fused, on_cpu)
    return model, fused


def computed(model: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What the model makes of `x`, and the gradients of `x` and of what is trained, by a loss that weighs outputs."""
    torch.manual_seed(1)
    x, weights = x.clone().requires_grad_(), torch.randn(*ROWS, OUTPUTS, generator=torch.Generator().manual_seed(3))
    out = model(x * 1)
    (out.float() * weights).sum().backward()
    return out, x.grad, *(p.grad for p in model.parameters() if p.requires_grad)  # type: ignore[return-value]


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(*ROWS, INPUTS, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_gradients_and_the_random_numbers_that_follow_are_pefts(kind, x):
    found = []
    for model in both(adapted(kind, count=2), on_cpu=False):
        found.append((*computed(model, x), torch.rand(3)))
    assert all(gradient.abs().max() > 0 for gradient in found[0])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


class Drawn(torch.nn.Module):
    """Dropout that drops what is dropped on a CPU."""

    p = 0.3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = round(CHANCES * self.p) / CHANCES
        return x * kept_of(x, p) / (1 - p)


@pytest.mark.parametrize("kind", LAYERS)
def test_on_a_cpu_they_are_pefts_for_what_was_dropped_there(kind, x):
    theirs, ours = both(adapted(kind, count=2), on_cpu=True)
    for layer in theirs.base_model.model.layers:
        layer.lora_dropout["default"] = Drawn()
    for t, o in zip(computed(theirs, x), computed(ours, x), strict=True):
        torch.testing.assert_close(o, t, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", LAYERS)
def test_without_dropout_they_are_pefts_too(kind, x):
    theirs, ours = (computed(each, x) for each in both(adapted(kind, count=2, lora_dropout=0.0), on_cpu=True))
    for t, o in zip(theirs, ours, strict=True):
        torch.testing.assert_close(o, t, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.05, 0.5])
def test_a_cpu_drops_the_share_that_it_is_told_and_no_pattern_of_it(p, dtype):
    torch.manual_seed(0)
    first, second = (kept_of(torch.empty(501, 999, dtype=dtype), p).double() for _ in range(2))
    assert first.unique().tolist() == [0, 1]
    spread = (p * (1 - p) / first.numel()) ** 0.5
    shares = [
        *(1 - kept.mean().item() for kept in (first, second)),
        *(1 - first.flatten()[i::4].mean() for i in range(4)),
    ]
    assert shares == pytest.approx([p] * 6, abs=8 * spread)
    # What lies side by side, and what is drawn next, is dropped independently.
    for one, other in ((first[:, 1:], first[:, :-1]), (first[1:], first[:-1]), (first, second)):
        assert ((1 - one) * (1 - other)).mean().item() == pytest.approx(p * p, abs=8 * spread)
    torch.manual_seed(0)
    assert torch.equal(kept_of(torch.empty(501, 999, dtype=dtype), p).double(), first)


@pytest.mark.parametrize("on_cpu", [True, False], ids=["on a CPU", "as on a GPU"])
def test_in_mixed_precision_they_are_as_near_to_those_in_full_as_pefts(on_cpu, x):
    model = adapted("in full", count=2)
    theirs, ours = both(model, on_cpu)
    if on_cpu:
        for layer in theirs.base_model.model.layers:
            layer.lora_dropout["default"] = Drawn()
    exact = computed(deepcopy(theirs), x)
    with torch.autocast("cpu", torch.bfloat16):
        found = computed(theirs, x), computed(ours, x)
    for e, t, o in zip(exact, *found, strict=True):
        assert (o - e).norm() <= 1.1 * (t - e).norm() + 1e-6


def test_an_adapter_in_another_format_than_its_layer_computes_in_its_own(x):
    model = adapted("in full", lora_dropout=0.0)
    base = model.base_model.model.layers[0].base_layer
    base.to(torch.bfloat16)
    theirs, ours = (computed(each, x.bfloat16()) for each in both(model, on_cpu=True))
    assert ours[0].dtype == theirs[0].dtype == torch.bfloat16
    for t, o in zip(theirs, ours, strict=True):
        torch.testing.assert_close(o, t, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(("on_cpu", "mask"), [(True, 4), (False, 0)])
def test_what_iskept_of_of_each_layer_is_less_than_its_inputs(on_cpu, mask, x):
    sizes = []
    for count in (1, 2, 3):
        model = adapted("in 4 bits", count)
        fuse_products(model, on_cpu)
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            model((x.clone().requires_grad_()) * 1)
        sizes.append(sum(kept.values()))
    rows = ROWS[0] * ROWS[1]
    assert {later - before for before, later in pairwise(sizes)} == {rows * (4 * RANK + mask * INPUTS)}


@pytest.mark.parametrize("how", ["answers", "is switched off"])
def test_a_model_that_is_not_trained_computes_as_peft_does(how, x):
    theirs, ours = both(adapted("in full"), on_cpu=True)
    for model in (theirs, ours):
        model.eval()
    if how == "answers":
        assert torch.equal(ours(x), theirs(x))
        return
    with theirs.disable_adapter(), ours.disable_adapter():
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_bias": True}], ids=str)
def test_adapters_that_are_more_than_two_matrices_stay_pefts(settings, x):
    theirs, ours = (computed(model, x) for model in both(adapted("in full", **settings), on_cpu=True))
    for t, o in zip(theirs, ours, strict=True):
        assert torch.equal(o, t)


def test_a_layer_whose_output_shares_memory_with_another_tensor_leaves_that_as_it_is(x):
    model = adapted("in full")
    layer = model.base_model.model.layers[0]
    fixed = torch.randn(ROWS[0] * ROWS[1] + 1, OUTPUTS)
    before = fixed.clone()
    fuse_products(model, on_cpu=True)
    layer.base_layer.forward = lambda _: fixed[1:]
    model(x)
    assert torch.equal(fixed, before)
