"""What is predicted of a GPU's memory, beside what the trainer holds of it by shapes.

Models of 2B to 7B weights, whole: three layers and four tell what all do. CUDA's context is no part of either number.
"""

from functools import cache
from typing import NamedTuple

import pytest

from finetuning.memory.fit import fitted, share_kept
from finetuning.memory.prediction import predict
from finetuning.memory.savings import with_settings
from finetuning.recipe.base_model import QuantizationSpec
from finetuning.recipe.recipe import Recipe
from tests.fake_gpu.device import obstacle
from tests.fake_gpu.models import config_of
from tests.fake_gpu.traces import Training

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=str(obstacle()))

FLASH, SDPA = "flash_attention_2", "sdpa"


class Case(NamedTuple):
    """A training whose memory is predicted."""

    model: str
    kernel: str
    rows: int
    """Of a pass."""
    length: int
    r: int
    checkpointing: bool
    bits: int = 4
    passes: int = 1

    def recipe(self) -> Recipe:
        """The training as a recipe."""
        return Recipe.model_validate(
            {
                "name": "case",
                "summary": "case",
                "base_model": {
                    "repo": "someone/model",
                    "quantization": {"bits": self.bits} if self.bits < 16 else None,
                    "attention": [self.kernel],
                },
                "dataset": {"sources": [{"generator": "linear-equations", "rows": 10}]},
                "chat": {"max_length": self.length},
                "lora": {"r": self.r, "lora_dropout": 0.05},
                "training": {
                    "per_device_train_batch_size": self.rows,
                    "per_device_eval_batch_size": 1,
                    "gradient_accumulation_steps": self.passes,
                    "activation_checkpointing": self.checkpointing,
                },
                "hub": {"repo": "case", "license": "mit"},
            }
        )


MISTRAL, ZEPHYR, FALCON, PHI, GEMMA = "mistral-7b-fennec", "zephyr-7b-beta", "falcon-7b", "phi-2", "gemma-2b"
# One of each kind, which `make test` has time for.
FEW = [
    Case(MISTRAL, FLASH, 4, 2048, 16, checkpointing=False),
    Case(MISTRAL, SDPA, 4, 2048, 256, checkpointing=True),
    Case(FALCON, FLASH, 8, 512, 256, checkpointing=False),
    Case(PHI, SDPA, 4, 1024, 256, checkpointing=True, passes=2),
    Case(GEMMA, FLASH, 4, 512, 16, checkpointing=True, bits=16),
]
OTHERS = [
    Case(MISTRAL, FLASH, 1, 512, 16, checkpointing=False),
    Case(MISTRAL, FLASH, 8, 512, 16, checkpointing=False),
    Case(MISTRAL, FLASH, 4, 2048, 16, checkpointing=True),
    Case(MISTRAL, FLASH, 4, 2048, 256, checkpointing=False),
    Case(MISTRAL, FLASH, 4, 2048, 256, checkpointing=True),
    Case(MISTRAL, FLASH, 4, 2048, 256, checkpointing=True, passes=2),
    Case(MISTRAL, FLASH, 4, 2048, 16, checkpointing=False, passes=2),
    Case(MISTRAL, FLASH, 1, 4096, 16, checkpointing=True),
    Case(MISTRAL, FLASH, 4, 4096, 16, checkpointing=True),
    Case(MISTRAL, SDPA, 4, 2048, 16, checkpointing=False),
    Case(MISTRAL, FLASH, 4, 512, 16, checkpointing=False, bits=16),
    Case(MISTRAL, FLASH, 4, 2048, 16, checkpointing=True, bits=16),
    Case(MISTRAL, FLASH, 1, 2048, 16, checkpointing=False, bits=16),
    Case(MISTRAL, FLASH, 7, 2048, 256, checkpointing=True),
    Case(ZEPHYR, FLASH, 8, 1024, 256, checkpointing=True),
    Case(ZEPHYR, FLASH, 2, 512, 32, checkpointing=False),
    Case(FALCON, FLASH, 42, 512, 256, checkpointing=True),
    Case(FALCON, FLASH, 4, 512, 256, checkpointing=False),
    Case(FALCON, FLASH, 1, 512, 32, checkpointing=False),
    Case(FALCON, FLASH, 4, 2048, 16, checkpointing=True),
    Case(FALCON, SDPA, 1, 2048, 16, checkpointing=False),
    Case(PHI, SDPA, 42, 1024, 256, checkpointing=True),
    Case(PHI, SDPA, 8, 1024, 256, checkpointing=True),
    Case(PHI, SDPA, 4, 512, 16, checkpointing=False),
    Case(PHI, FLASH, 4, 512, 8, checkpointing=False, bits=16),
    Case(GEMMA, FLASH, 1, 3072, 6, checkpointing=False),
    Case(GEMMA, SDPA, 4, 2048, 16, checkpointing=True),
]


@pytest.fixture(scope="module")
def traced(h100):
    """A function that gives the bytes that the second step of a training with so many layers holds at most."""

    @cache
    def peak(case: Case, layers: int) -> int:
        rows = [case.length] * (2 * case.rows * case.passes)
        return h100(Training(case.recipe(), config_of(case.model, layers), rows, evaluates=False)).peaks[-1]

    return peak


def whole(case: Case, peak) -> int:
    """Bytes of the whole model's training: each layer adds as many as another."""
    few, more = peak(case, 3), peak(case, 4)
    return more + (config_of(case.model).num_hidden_layers - 4) * (more - few)


def require_near(case: Case, peak) -> None:
    prediction = predict(case.recipe(), config_of(case.model), "cuda")
    assert prediction.total - prediction.libraries == pytest.approx(whole(case, peak), rel=0.05), prediction.text()


@pytest.mark.parametrize("case", FEW, ids=str)
def test_a_training_is_predicted_to_a_twentieth(traced, case):
    require_near(case, traced)


@pytest.mark.parametrize("kept_layers", [2, 6])
def test_layers_that_keep_their_activations_need_what_lies_between_none_and_all(h100, kept_layers):
    case, layers = Case(MISTRAL, FLASH, 4, 2048, 16, checkpointing=True), 8
    config = config_of(case.model, layers)
    computed, kept = (predict(each.recipe(), config, "cuda") for each in (case, case._replace(checkpointing=False)))
    prediction = computed.towards(kept, share_kept(kept_layers, layers))
    rows = [case.length] * (2 * case.rows)
    peak = h100(Training(case.recipe(), config, rows, evaluates=False, kept_layers=kept_layers)).peaks[-1]
    assert prediction.total - prediction.libraries == pytest.approx(peak, rel=0.05)
    assert computed.total < prediction.total < kept.total


@pytest.mark.parametrize(
    "case",
    [Case(MISTRAL, FLASH, 4, 2048, 16, checkpointing=False), Case(PHI, SDPA, 4, 512, 16, checkpointing=False)],
    ids=str,
)
def test_weights_that_are_written_out_are_predicted_to_a_twentieth_as_well(h100, case):
    config, rows = config_of(case.model, layers=5), [case.length] * (2 * case.rows)
    written = h100(Training(case.recipe(), config, rows, evaluates=False, writes_weights_out=True))
    fit = fitted(case.recipe(), case.length, 2**50, lambda recipe: predict(recipe, config, "cuda"), writes_out=True)
    prediction = fit.prediction
    assert fit.in_4_bits is not None and fit.in_4_bits < prediction.total
    assert prediction.total - prediction.libraries == pytest.approx(written.peaks[-1], rel=0.05), prediction.text()
    assert not any(kernel.name.startswith(("gemm_4bit", "dequantize")) for kernel in written.work["step 2"])


@pytest.fixture
def layers_as_they_come(monkeypatch):
    """Let layers keep what peft's and transformers' own keep, as litgpt's do."""
    for name in ("fuse_products", "fuse_others"):
        monkeypatch.setattr(f"finetuning.memory.prediction.{name}", lambda *_, **__: None)
    monkeypatch.setattr("finetuning.memory.gpu_layers.is_rms_norm", lambda kind: False)


@pytest.mark.usefixtures("layers_as_they_come")
@pytest.mark.parametrize(
    ("model", "targets", "rows", "gigabytes", "near"),
    [("mistral-7b-fennec", ("q_proj", "v_proj"), 2, 20.66, 0.05), ("falcon-7b", ("query_key_value",), 1, 16.69, 0.1)],
)
def test_what_was_measured_elsewhere_is_near_what_is_predicted(model, targets, rows, gigabytes, near):
    """litgpt's config_hub/finetune: rank 32, 512 tokens, bfloat16, on an A10G; its code holds a little more."""
    recipe = with_settings(Case(model, SDPA, rows, 512, 32, False, 16).recipe(), {"lora.target_modules": targets})
    prediction = predict(recipe, config_of(model), "cuda")
    assert (prediction.total - prediction.libraries) / 1e9 == pytest.approx(gigabytes, rel=near)


@pytest.mark.usefixtures("layers_as_they_come")
@pytest.mark.parametrize(
    ("model", "targets", "rows", "gigabytes", "inputs", "near"),
    [
        ("mistral-7b-fennec", ("q_proj", "v_proj"), 2, 14.29, 3 * 4096 + 14336, 0.05),
        ("falcon-7b", ("query_key_value",), 1, 9.44, 2 * 4544 + 18176, 0.12),
    ],
)
def test_in_4_bits_the_same_is_near_less_what_bitsandbytes_kept_then(model, targets, rows, gigabytes, inputs, near):
    """litgpt's config_hub/finetune/*/qlora.yaml, NF4 with scales that are not quantized.

    Until 0.43.2 bitsandbytes kept the inputs of each product with a quantized weight, of so many numbers a token and
    layer, which no backward pass needs (bitsandbytes pull request 1270). They were attributes of the graph, so that
    those of a pass were there until litgpt had made the next one: two bytes for each number, twice. litgpt's Falcon has
    a head of its own, and copies of keys and values for each head.
    """
    changes = {"lora.target_modules": targets, "base_model.quantization": QuantizationSpec(bits=4, double=False)}
    recipe = with_settings(Case(model, SDPA, rows, 512, 32, False).recipe(), changes)
    kept = 2 * 2 * rows * 512 * config_of(model).num_hidden_layers * inputs
    prediction = predict(recipe, config_of(model), "cuda")
    assert (prediction.total - prediction.libraries + kept) / 1e9 == pytest.approx(gigabytes, rel=near)


@pytest.mark.long("27 trainings, traced twice each")
@pytest.mark.parametrize("case", OTHERS, ids=str)
def test_all_kinds_of_trainings_are_predicted_to_a_twentieth(traced, case):
    require_near(case, traced)
