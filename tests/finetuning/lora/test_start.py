"""An adapter to go on from: it says what it is, is one of the base model, and is trained from where it was."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from finetuning.base_model.loading import load_model
from finetuning.base_model.quantized_base_model import quantize
from finetuning.errors import FinetuningError
from finetuning.lora.start import CONFIG, WEIGHTS, adopted, read_config, require_same_base
from finetuning.progress import Progress
from finetuning.recipe import loading
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.recipe.lora import LoraSpec
from finetuning.recipe.mistakes import RecipeError
from finetuning.training.lora_adapter import train
from resources.gpu import Gpu
from tests.finetuning.recipe.short_recipe import write
from tests.finetuning.training.adapter_jobs import data, job_of
from tests.tiny_models import save_tiny_model

SILENT = Progress(lambda line: None, "")
NO_CHANGE = {"max_steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0, "warmup_steps": 0}
ATTENTION = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("tiny"))


def adapter(folder, out, **settings):
    """A trained adapter of the tiny model in `out`."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(**ATTENTION | settings))
    for name, weight in model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(out, save_embedding_layers=False)
    return out


def started(folder, **settings):
    return adopted(LoraSpec.model_validate({"from": str(folder), **settings}), folder, "x.yaml")


def test_the_adapter_says_what_it_is(tiny, tmp_path):
    spec = started(adapter(tiny, tmp_path / "a", use_rslora=True, modules_to_save=["norm"]), lora_dropout=0.2)
    assert (spec.r, spec.lora_alpha, spec.use_rslora, spec.lora_dropout) == (3, 5, True, 0.2)
    assert set(spec.target_modules) == {"q_proj", "v_proj"} and spec.modules_to_save == ("norm",)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"r": 16}, r"lora\.r: 16, and the adapter .* has 3"),
        ({"lora_alpha": 6}, r"lora\.lora_alpha: 6, .* has 5"),
        ({"use_dora": True}, r"lora\.use_dora: true, .* has false"),
        ({"modules_to_save": ["lm_head"]}, r"lora\.modules_to_save: \[lm_head\], .* has null"),
        ({"target_modules": ["q_proj"]}, r"lora\.target_modules: \[q_proj\], .* q_proj, v_proj"),
        ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, r"lora\.target_modules: .* q_proj, v_proj"),
    ],
)
def test_a_recipe_that_says_something_else_is_told(tiny, tmp_path, settings, told):
    folder = adapter(tiny, tmp_path)
    with pytest.raises(FinetuningError, match=rf"^x\.yaml: {told}"):
        started(folder, **settings)


def test_what_says_the_same_is_no_contradiction(tiny, tmp_path):
    started(adapter(tiny, tmp_path), r=3, lora_alpha=5, target_modules=["v_proj", "q_proj"], use_dora=False)


def test_a_folder_that_holds_no_lora_adapter_is_named(tiny, tmp_path):
    with pytest.raises(FinetuningError, match=r"is no adapter: it has no adapter_config\.json; it has .*config\.json"):
        read_config(tiny, "x.yaml")
    (adapter(tiny, tmp_path) / CONFIG).write_text('{"peft_type": "IA3"}')
    with pytest.raises(FinetuningError, match="kind IA3"):
        read_config(tmp_path, "x.yaml")
    (tmp_path / WEIGHTS).write_bytes(b"\xff" * 100)
    (tmp_path / CONFIG).write_text('{"peft_type": "LORA", "r": 3}')
    with pytest.raises(FinetuningError, match=r"adapter_model\.safetensors is cut short or damaged"):
        started(tmp_path)


BASE = {"source": "me/model", "revision": "a" * 40, "on_hub": True}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"base_model_name_or_path": "me/other"}, r"is one of me/other, .* me/model.*repo: me/other"),
        ({"base_model_name_or_path": None}, r"does not say of which base model"),
        ({"base_model_name_or_path": "/root/gone"}, r"is one of /root/gone.*base_model_name_or_path"),
        ({"base_model_name_or_path": "me/model", "revision": "b" * 40}, r"at b{40}.*\{revision: b{40}\}"),
    ],
)
def test_an_adapter_of_another_base_model_is_refused(config, told, tmp_path):
    with pytest.raises(FinetuningError, match=rf"^x\.yaml: lora\.from: .*{told}"):
        require_same_base(config, BASE, tmp_path, "x.yaml")


def test_an_adapter_of_this_base_model_is_taken(tiny, tmp_path):
    require_same_base({"base_model_name_or_path": "me/model"}, BASE, tmp_path, "x.yaml")
    require_same_base({"base_model_name_or_path": "me/model", "revision": "a" * 40}, BASE, tmp_path, "x.yaml")
    local = {"source": str(tiny), "revision": "0" * 16, "on_hub": False}
    require_same_base({"base_model_name_or_path": f"{tiny}/../{tiny.name}"}, local, tmp_path, "x.yaml")
    require_same_base({"base_model_name_or_path": str(tmp_path)}, local, tmp_path, "x.yaml")


def job_from(tmp_path, base, start, kwargs=None, **training):
    data(tmp_path, base)
    lora = json.loads(started(start).model_dump_json())
    changes = {"model_kwargs": kwargs} if kwargs else {}
    return job_of(tmp_path, base, lora, {**NO_CHANGE, **training}, **changes)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("settings", [{}, {"modules_to_save": ["norm"]}, {"use_dora": True}])
def test_training_begins_where_the_adapter_was(tiny, tmp_path, settings, quantized):
    base, kwargs, start = tiny, None, adapter(tiny, tmp_path / "start", **settings)
    if quantized:
        spec = BaseModelSpec.model_validate({"repo": str(tiny)})
        base, kwargs = tmp_path / "base", Gpu().model_kwargs(spec)
        quantize(spec, tiny, base, kwargs, "tiny")
    train(job_from(tmp_path, base, start, kwargs), SILENT)
    before, after = (load_file(folder / WEIGHTS) for folder in (start, tmp_path / "adapter"))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        torch.testing.assert_close(after[name].float(), weight.float(), atol=1e-5, rtol=1e-4)


def test_it_is_trained_further_and_loads_by_itself(tiny, tmp_path):
    start = adapter(tiny, tmp_path / "start")
    train(job_from(tmp_path, tiny, start, learning_rate=1e-2, max_steps=3), SILENT)
    before, after = (load_file(folder / WEIGHTS) for folder in (start, tmp_path / "adapter"))
    assert all(not torch.equal(before[name], after[name]) for name in before)
    config = json.loads((tmp_path / "adapter" / CONFIG).read_text())
    assert (config["r"], config["lora_alpha"], sorted(config["target_modules"])) == (3, 5, ["q_proj", "v_proj"])
    alone = PeftModel.from_pretrained(load_model(tiny), str(tmp_path / "adapter"))
    assert sum("lora_A" in name for name, _ in alone.named_parameters()) == 4


def test_an_adapter_of_another_architecture_or_shape_is_refused(tiny, tmp_path):
    start = adapter(tiny, tmp_path / "start")
    other = save_tiny_model("phi-2", tmp_path / "phi")
    wide = save_tiny_model("smollm2-135m", tmp_path / "wide", hidden_size=128)
    weights = load_file(start / WEIGHTS)
    with pytest.raises(FinetuningError, match=r"lora\.from: the adapter does not fit the base model"):
        train(job_from(tmp_path, wide, start), SILENT)
    renamed = {name.replace("layers.1.", "layers.7."): weight for name, weight in weights.items()}
    save_file(renamed, start / WEIGHTS, {"format": "pt"})
    with pytest.raises(FinetuningError, match=r"layers\.7\.self_attn\.[qv]_proj, which PhiForCausalLM does not have"):
        train(job_from(tmp_path, other, start), SILENT)


def damaged(folder, change):
    """The adapter in a folder, whose weights `change` has changed."""
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    return folder


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_adapter_with_numbers_that_are_not_finite_is_refused_by_its_key(tiny, tmp_path, bad):
    def spoil(weights):
        next(iter(weights.values()))[0, 0] = bad

    start = damaged(adapter(tiny, tmp_path / "start"), spoil)
    with pytest.raises(
        FinetuningError, match=r"lora\.from: 1 matrices of the adapter hold numbers that are not finite"
    ):
        train(job_from(tmp_path, tiny, start), SILENT)


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.pop(next(iter(weights))),
        lambda weights: weights.update({"lm_head.weight": torch.ones(2)}),
    ],
    ids=["a weight is missing", "the head lies with it"],
)
def test_an_adapter_whose_file_is_not_what_its_configuration_says_is_told_by_its_key(tiny, tmp_path, change):
    start = damaged(adapter(tiny, tmp_path / "start"), change)
    with pytest.raises(FinetuningError, match=r"lora\.from: .*not the weights .* Save it with all that") as error:
        train(job_from(tmp_path, tiny, start), SILENT)
    assert "train it again" not in str(error.value)


def test_an_adapter_of_the_head_is_refused_by_the_key_that_names_it(tiny, tmp_path):
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny), LoraConfig(**ATTENTION | {"target_modules": ["q_proj", "lm_head"]})
    )
    model.save_pretrained(tmp_path / "start", save_embedding_layers=False)
    with pytest.raises(FinetuningError, match=r"lora\.from: the adapter goes to it, and lm_head cannot be a target"):
        train(job_from(tmp_path, tiny, tmp_path / "start"), SILENT)


RECIPE = """\
summary: s
base_model: {repo: me/model}
dataset: {sources: [{generator: linear-equations, rows: 10}]}
lora: {from: me/adapter%s}
hub: {repo: r, license: mit}
%s
"""


@pytest.mark.parametrize(
    ("lora", "training", "told"),
    [
        (", init_lora_weights: pissa", "", "lora.init_lora_weights: pissa beside lora.from"),
        ("", "training: {method: dpo}", "lora.from: an adapter to go on from with training.method: dpo"),
    ],
)
def test_what_does_not_go_with_it_is_a_mistake_of_the_recipe(tmp_path, lora, training, told):
    with pytest.raises(RecipeError, match=told):
        loading.load_file(write(tmp_path, RECIPE % (lora, training)))


def test_it_is_read_written_and_absent_by_its_own_name(tmp_path):
    recipe = loading.load_file(write(tmp_path, RECIPE % ("", "")))
    assert recipe.lora.start_from == "me/adapter"
    assert recipe.model_dump(mode="json", exclude_unset=True)["lora"] == {"from": "me/adapter"}
    assert type(recipe).model_validate(recipe.model_dump(mode="json")).lora == recipe.lora


@pytest.mark.parametrize("said", [{"r": "x"}, {"r": -1}, {"r": 10**30}, {"lora_alpha": float("nan")}])
def test_what_an_adapter_says_of_itself_and_cannot_be_is_told_with_its_file(tiny, tmp_path, said):
    folder = adapter(tiny, tmp_path / "a")
    config = folder / CONFIG
    config.write_text(json.dumps(json.loads(config.read_text()) | said))
    (key,) = said
    with pytest.raises(FinetuningError, match=rf"x\.yaml: lora\.from: .*{CONFIG}: {key}: "):
        started(folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_pointer_of_git_in_the_place_of_an_adapters_file_is_told(tiny, tmp_path, name):
    folder = adapter(tiny, tmp_path / "a")
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(FinetuningError, match=rf"lora\.from: .*{name} is a Git LFS pointer"):
        read_config(folder, "x.yaml")
