"""The GPU resource: what a machine gets of what a recipe asks for."""

import sys
import threading
import timeit
from dataclasses import fields
from types import SimpleNamespace

import psutil
import pytest
import torch

from finetuning.errors import FinetuningError
from finetuning.memory.fit import fitted, in_yaml, told
from finetuning.memory.prediction import MIB, Prediction
from finetuning.memory.savings import with_settings
from finetuning.recipe.base_model import BaseModelSpec, QuantizationSpec
from finetuning.recipe.recipe import Recipe
from finetuning.training.job import TrainingTask
from resources.gpu import Gpu, Machine, detect, obstacle
from tests.tiny_models import save_tiny_model

H100 = Machine("cuda", "NVIDIA H100", (9, 0), 80 << 30, bf16=True)
T4 = Machine("cuda", "Tesla T4", (7, 5), 15 << 30, bf16=False)


def base_model(**changes):
    return BaseModelSpec.model_validate({"repo": "someone/model", **changes})


FEW_INSTRUCTIONS = Machine("cpu", "CPU", None, 8 << 30, bf16=False)


@pytest.mark.parametrize(("machine", "computed"), [(T4, "float16"), (FEW_INSTRUCTIONS, "float32"), (H100, "bfloat16")])
def test_what_does_not_multiply_bfloat16_fast_computes_in_something_else(monkeypatch, machine, computed):
    monkeypatch.setattr("resources.gpu.detect", lambda: machine)
    assert Gpu().model_kwargs(base_model())["dtype"] == computed
    assert Gpu().model_kwargs(base_model(dtype="float32"))["dtype"] == "float32"
    assert Gpu().quantization_kwargs(base_model())["dtype"] == ("bfloat16" if machine.device == "cpu" else computed)


@pytest.mark.skipif(detect().device == "cuda", reason="this machine has a GPU")
def test_a_cpu_computes_in_bfloat16_only_where_that_is_not_far_slower():
    def seconds(dtype):
        left, right = torch.ones(512, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
        return min(timeit.repeat(lambda: left @ right, number=1, repeat=5))

    slowdown = seconds(getattr(torch, Gpu().dtype(base_model()))) / seconds(torch.float32)
    assert slowdown < 5


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


def install(folder, monkeypatch, package, release, modules):
    """Lay a package out as pip does: modules by their path, and what it says of itself."""
    for path, source in modules.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    info = folder / f"{package.replace('-', '_')}-{release}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {release}\n")
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Installs packages for a test, none of which is imported yet."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("flash_attn", "flash_attn_interface")]:
        monkeypatch.delitem(sys.modules, name)
    yield lambda package, release, modules: install(tmp_path, monkeypatch, package, release, modules)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("flash_attn", "flash_attn_interface")]:
        del sys.modules[name]


FUNCTIONS = "def flash_attn_func(): ...\ndef flash_attn_varlen_func(): ...\n"
PADDING = "def pad_input(): ...\ndef unpad_input(): ...\n"


def test_flash_attention_4_alone_is_not_flash_attention_2(packages):
    packages("flash-attn-4", "4.0.0b36", {"flash_attn/cute/__init__.py": FUNCTIONS})
    assert obstacle("flash_attention_2", H100) == "needs the package flash-attn, which is not installed"
    assert obstacle("flash_attention_4", H100) is None


def test_flash_attention_2_is_not_flash_attention_4_though_its_package_has_that_folder(packages):
    modules = {"flash_attn/__init__.py": FUNCTIONS, "flash_attn/bert_padding.py": PADDING}
    packages("flash-attn", "2.8.3", {**modules, "flash_attn/cute/__init__.py": FUNCTIONS})
    assert obstacle("flash_attention_2", H100) is None
    assert obstacle("flash_attention_4", H100) == "needs the package flash-attn-4, which is not installed"


def test_flash_attention_3_has_a_module_of_its_own(packages):
    assert obstacle("flash_attention_3", H100) == "needs the package flash-attn-3, which is not installed"
    packages("flash-attn-3", "3.0.0b1", {"flash_attn_interface.py": FUNCTIONS})
    assert obstacle("flash_attention_3", H100) is None


@pytest.mark.parametrize(
    ("release", "source", "lack"),
    [
        ("2.0.4", FUNCTIONS, "flash-attn 2.3.3 or later, and 2.0.4 is installed"),
        ("2.8.3", "def flash_attn_func(): ...", "of which flash_attn has no flash_attn_varlen_func"),
        (
            "2.8.3",
            "raise ImportError('undefined symbol: _ZN3c10')",
            "flash_attn does not import: undefined symbol",
        ),
    ],
)
def test_a_flash_kernel_that_would_fail_is_passed_over_with_the_reason(packages, release, source, lack):
    packages("flash-attn", release, {"flash_attn/__init__.py": source, "flash_attn/bert_padding.py": PADDING})
    assert lack in str(obstacle("flash_attention_2", H100))


def test_kernels_of_the_hub_are_asked_for_only_where_their_package_is_one_that_transformers_takes(packages):
    packages("kernels", "0.1.0", {"kernels/__init__.py": ""})
    assert obstacle("flash_attention_2", H100) == "needs the package flash-attn, which is not installed"


def test_torchs_own_kernels_run_everywhere():
    assert obstacle("varlen", T4) is None and obstacle("varlen", H100) is None
    assert obstacle("sdpa", T4) is None and obstacle("sdpa", H100) is None


def test_two_works_of_an_instance_are_never_done_at_once(tmp_path):
    gpu, order, said = Gpu(locks=str(tmp_path / "locks")), [], []
    begun = threading.Event()

    def evaluate():
        begun.set()
        with gpu.exclusive(said.append):
            order.append("evaluated")

    with gpu.exclusive(said.append):
        waiting = threading.Thread(target=evaluate)
        waiting.start()
        begun.wait()
        waiting.join(0.5)
        order.append("trained")
    waiting.join()
    assert order == ["trained", "evaluated"]
    assert len(said) == 1 and said[0].startswith("waiting for another process that holds ")


def recipe_of(**training):
    return Recipe.model_validate(
        {
            "name": "tiny",
            "summary": "tiny",
            "base_model": {"repo": "someone/model"},
            "dataset": {"sources": [{"generator": "linear-equations", "rows": 10}]},
            "chat": {"max_length": 512},
            "training": {"per_device_eval_batch_size": 1, "activation_checkpointing": False, **training},
            "hub": {"repo": "tiny", "license": "mit"},
        }
    )


def test_what_fits_is_said_with_what_is_free(tmp_path):
    fit = Gpu().fit(recipe_of(), save_tiny_model("smollm2-135m", tmp_path))
    assert fit.fits and not fit.alternatives
    first, *_ = fit.text().splitlines()
    assert f"memory: {fit.prediction.total // MIB:,} MiB at its peak (" in first
    assert first.endswith(f"; {fit.free // MIB:,} MiB are free")


def test_what_does_not_fit_is_said_with_the_settings_that_would(tmp_path, monkeypatch):
    folder, rows = save_tiny_model("smollm2-135m", tmp_path), 64
    enough = Gpu().fit(recipe_of(per_device_train_batch_size=rows // 4), folder).prediction.total
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=enough))
    fit = Gpu().fit(recipe_of(per_device_train_batch_size=rows), folder)
    assert not fit.fits and fit.unquantized is None
    (settings, size), *_ = fit.alternatives
    passes = settings["training.gradient_accumulation_steps"]
    assert (passes, settings["training.per_device_train_batch_size"]) == (4, rows // 4)
    assert all(size <= fit.free for _, size in fit.alternatives)
    first, second, *_ = fit.text().splitlines()
    assert first.endswith("MiB are free, which is too little")
    assert second == (
        f"{size // MIB:,} MiB would do with training.per_device_train_batch_size: {rows // passes}, "
        f"training.gradient_accumulation_steps: {passes}, training.per_device_eval_batch_size: 1"
    )
    assert fit.advice().startswith(f"{fit.prediction.total // MIB:,} MiB were predicted, and {fit.free // MIB:,} MiB")
    assert second in fit.advice()


def test_a_training_that_was_to_fit_and_did_not_is_told_so():
    fit = fitted(recipe_of(), 512, 100 * MIB, predicted)
    assert "other processes took memory since then, or the prediction is wrong" in fit.advice()


def predicted(recipe: Recipe) -> Prediction:
    """Made up: 8 MiB, 4 if activations are computed twice, and 2 more without quantization."""
    sizes = dict.fromkeys((field.name for field in fields(Prediction)), 0)
    sizes["activations"] = (4 if recipe.training.activation_checkpointing else 8) * MIB
    return Prediction(**sizes | {"weights": 0 if recipe.base_model.quantization else 2 * MIB})


@pytest.mark.parametrize(("free", "expected"), [(8, False), (7, True), (4, True), (3, True)])
def test_where_the_recipe_leaves_it_open_activations_are_computed_twice_only_if_they_do_not_fit(free, expected):
    fit = fitted(recipe_of(activation_checkpointing=None), 512, free * MIB, predicted)
    assert (fit.checkpointing, fit.kept, fit.fits) == (expected, 8 * MIB, free >= 4)
    assert fit.prediction.total == (4 if expected else 8) * MIB
    why = "true, as 8 MiB would be needed without" if expected else "false, as it fits without"
    assert f"training.activation_checkpointing: {why}" in fit.text()
    assert "activation_checkpointing" not in fit.advice()


@pytest.mark.parametrize(("free", "layers"), [(3, 0), (4, 0), (4.3, 0), (5.5, 8), (7.7, 24), (7.99, 26), (8, 0)])
def test_as_many_layers_keep_their_activations_as_there_is_room_for(free, layers):
    fit = fitted(recipe_of(activation_checkpointing=None), 512, int(free * MIB), predicted, layers=32)
    assert fit.kept_layers == layers
    # Between 4 MiB with none of them and 8 with all.
    assert fit.prediction.total == pytest.approx((8 if free == 8 else 4 + 4 * max(0, layers - 1) / 31) * MIB)
    assert (f"; the last {layers} of 32 layers keep theirs" in fit.text()) is (layers > 0)
    assert told(TrainingTask.of(recipe_of()), fit).kept_layers == layers


@pytest.mark.parametrize("chosen", [True, False])
def test_what_the_recipe_says_of_activations_is_done(chosen):
    fit = fitted(recipe_of(activation_checkpointing=chosen), 512, 7 * MIB, predicted, layers=32)
    assert (fit.checkpointing, fit.kept, fit.fits, fit.kept_layers) == (chosen, None, chosen, 0)
    assert "training.activation_checkpointing: true" in fit.text() or chosen


@pytest.mark.parametrize(("free", "expected"), [(10, 10 * MIB), (9, None)])
def test_full_precision_is_mentioned_only_where_it_fits(free, expected):
    fit = fitted(recipe_of(), 512, free * MIB, predicted)
    assert fit.unquantized == expected
    assert ("base_model.quantization: null would fit too (10 MiB), and train faster" in fit.text()) is (
        expected is not None
    )


@pytest.mark.parametrize(("free", "written_out"), [(12, True), (11, True), (10.9, False), (8, False)])
def test_weights_of_4_bits_are_written_out_only_where_there_is_room_to_spare(free, written_out):
    fit = fitted(recipe_of(), 512, int(free * MIB), predicted, writes_out=True)
    assert (fit.in_4_bits, fit.prediction.total) == ((8 * MIB, 10 * MIB) if written_out else (None, 8 * MIB))
    assert ("written out once, for which there is room (8 MiB would be needed without)" in fit.text()) is written_out
    assert fit.unquantized == (10 * MIB if free == 10.9 else None)
    assert told(TrainingTask.of(recipe_of()), fit).writes_weights_out is written_out


@pytest.mark.parametrize(
    "settings",
    [
        {"base_model.quantization": QuantizationSpec(bits=8)},
        {"base_model.quantization": None},
        {"lora.use_dora": True},
    ],
    ids=str,
)
def test_other_weights_than_those_of_4_bits_stay_as_they_are(settings):
    assert fitted(with_settings(recipe_of(), settings), 512, 100 * MIB, predicted, writes_out=True).in_4_bits is None


def test_weights_are_written_out_where_activations_are_computed_twice_because_the_recipe_says_so():
    open_or_not = [recipe_of(activation_checkpointing=value) for value in (True, None)]
    fits = [fitted(recipe, 512, int(7 * MIB), predicted, layers=32, writes_out=True) for recipe in open_or_not]
    assert [fit.in_4_bits for fit in fits] == [4 * MIB, None]
    assert fits[1].kept_layers > 0, "which spares more"


def test_processes_that_train_together_share_the_memory_of_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**40))
    assert Gpu().fit(recipe_of(), save_tiny_model("smollm2-135m", tmp_path), processes=4).free == 2**38


def test_a_model_that_brings_its_own_code_is_not_predicted(tmp_path):
    recipe = with_settings(recipe_of(), {"base_model.trust_remote_code": True})
    with pytest.raises(FinetuningError, match="runs code that its repo ships"):
        Gpu().fit(recipe, save_tiny_model("smollm2-135m", tmp_path))


def test_rows_that_are_shorter_than_the_recipe_allows_need_less(tmp_path):
    folder = save_tiny_model("smollm2-135m", tmp_path)
    whole, short = (Gpu().fit(recipe_of(), folder, longest=longest) for longest in (None, 64))
    assert short.prediction.total < whole.prediction.total


def test_where_nothing_helps_a_smaller_model_is_proposed():
    nothing = fitted(recipe_of(), 512, 1, predicted)
    assert "take a smaller base model" in nothing.text() and "take a smaller base model" in nothing.advice()


def test_settings_are_shown_as_a_recipe_has_them():
    quantization = base_model(quantization={"bits": 4}).quantization
    assert in_yaml(quantization) == "{bits: 4, type: nf4, double: true}"
    assert (in_yaml(True), in_yaml(None), in_yaml(8)) == ("true", "null", "8")
