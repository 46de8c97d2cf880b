"""Rows of new tokens: trained, saved, alone in that, and the same in the process of somebody who loads the adapter."""

import json

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetuning.base_model.loading import load_model
from finetuning.base_model.quantized_base_model import quantize
from finetuning.chat.chat_dataset import write_chat
from finetuning.chat.tokenizer import load_tokenizer
from finetuning.dataset.raw_dataset import write_raw
from finetuning.errors import FinetuningError
from finetuning.evaluation.exam import questions_of
from finetuning.lora.config import lora_config
from finetuning.lora.embeddings import give_rows, untrained_rows
from finetuning.lora.loading import load_adapter
from finetuning.progress import Progress
from finetuning.recipe.lora import LoraSpec
from finetuning.recipe.recipe import Recipe
from finetuning.training.job import TrainingJob
from finetuning.training.lora_adapter import train
from resources.gpu import Gpu
from tests.conftest import train_tiny_tokenizer
from tests.exams import examined
from tests.tiny_models import CONFIGS, SMALL
from tests.warm_server import WarmServer

EQUATIONS = {
    "generator": "linear-equations",
    "format": "question-answer",
    "columns": {"question": "Problem", "answer": "Solution"},
    "rows": 20,
}
SILENT = Progress(lambda line: None, "")
TOKENS = ["<|im_start|>", "<|im_end|>"]
# The configuration; reserved entries of the vocabulary; rows beyond it; whether the head is the embeddings.
KINDS = {
    "gemma-2b": (3, 0, True),  # renamed
    "phi-2": (0, 9, False),  # spare rows, and a head with a bias
    "mistral-7b-fennec": (0, 0, False),  # new rows of both
    "smollm2-135m": (0, 0, True),  # new rows of what is both
}
LOAD = """
import sys, torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import save_file
from transformers import AutoTokenizer
folder, out, text = sys.argv[1:]
model = AutoPeftModelForCausalLM.from_pretrained(folder).eval()
ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
with torch.inference_mode():
    save_file({"ids": ids, "logits": model(input_ids=ids).logits.float()}, out)
"""
TEXT = "<|im_start|>user\nWhat is 2 + 1?<|im_end|>\n<|im_start|>assistant\n#### 3<|im_end|>\n"


def save_base(kind, folder, reserved, spare):
    """`folder`, which then holds a random model whose rows all differ, and a tokenizer without ChatML's tokens."""
    torch.manual_seed(0)
    tokenizer = train_tiny_tokenizer()
    tokenizer.add_tokens([f"<unused{i}>" for i in range(reserved)])
    config_class, particulars = CONFIGS[kind]
    names = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "max_position_embeddings": 512}
    model = AutoModelForCausalLM.from_config(
        config_class(**{**SMALL, **particulars, **names, "vocab_size": len(tokenizer) + spare})
    )
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.1)
    if model.lm_head.bias is not None:
        torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def recipe_for(folder) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "summary": "Solves equations",
            "base_model": {"repo": str(folder), "chat_template": "chatml", "attention": ["sdpa"]},
            "dataset": {"sources": [EQUATIONS], "eval": {"fraction": 0.3}},
            "training": {
                "max_steps": 3,
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 1,
                "learning_rate": 1.0e-2,
                "logging_steps": 1,
            },
            "evaluation": {"rows": 2, "max_new_tokens": 3},
            "hub": {"repo": "tiny", "license": "mit"},
        }
    )


@pytest.fixture(scope="module", params=sorted(KINDS))
def line(request, tmp_path_factory):
    """The folders of a run from raw rows to an adapter, for each way that a vocabulary makes room."""
    reserved, spare, tied = KINDS[request.param]
    root = tmp_path_factory.mktemp(request.param)
    recipe = recipe_for(save_base(request.param, root / "model", reserved, spare))
    for name in ("raw", "base", "adapter"):
        (root / name).mkdir()
    write_raw(recipe.dataset, {"train-00": "1"}, root / "raw", api=None, file=recipe.file)  # type: ignore[arg-type]
    tokenizer = load_tokenizer(recipe.base_model, root / "model", recipe.file)
    write_chat(root / "raw", root / "chat", recipe, tokenizer)
    kwargs = Gpu().model_kwargs(recipe.base_model)
    quantize(recipe.base_model, root / "model", root / "base", kwargs, "x")
    job = TrainingJob(
        where="tiny.yaml",
        lora=recipe.lora,
        training=recipe.training,
        max_length=recipe.chat.max_length,
        chat_dataset=root / "chat",
        base_model=root / "base",
        model_kwargs=kwargs,
        output=root / "adapter",
    )
    train(job, SILENT)
    return {"root": root, "recipe": recipe, "kwargs": kwargs, "given": tokenizer.given_tokens, "tied": tied}


def models(line):
    """Base (with rows for its new tokens), tuned model and tokenizer, as evaluation has them."""
    root = line["root"]
    tokenizer = AutoTokenizer.from_pretrained(root / "adapter")
    base, fresh = (load_model(root / "base", **line["kwargs"]) for _ in range(2))
    for model in (base, fresh):
        give_rows(model, tokenizer, root / "base", "x")
    return base.eval(), load_adapter(fresh, root / "adapter", [3, 4, 5]), tokenizer


def test_the_tokens_come_from_where_there_is_room(line):
    size, name = len(train_tiny_tokenizer()), line["root"].name
    if name.startswith("gemma"):
        assert line["given"] == {"<|im_start|>": "renamed <unused0>", "<|im_end|>": "renamed <unused1>"}
    else:
        kind = "a spare" if name.startswith("phi") else "a new"
        assert line["given"] == {
            token: f"new token {size + i}, {kind} row of the embeddings" for i, token in enumerate(TOKENS)
        }


def test_a_strangers_process_has_the_same_tokens_and_logits(line):
    _, tuned, tokenizer = models(line)
    out = line["root"] / "logits.safetensors"
    loaded = WarmServer.run_code(LOAD, str(line["root"] / "adapter"), str(out), TEXT)
    assert loaded.returncode == 0, loaded.stdout
    there = load_file(out)
    ids = tokenizer(TEXT, return_tensors="pt", add_special_tokens=False)["input_ids"]
    assert torch.equal(there["ids"], ids)
    assert (ids == tokenizer.convert_tokens_to_ids("<|im_end|>")).sum() == 2
    with torch.inference_mode():
        torch.testing.assert_close(tuned(input_ids=ids).logits.float(), there["logits"], rtol=0, atol=1e-6)


def effective(model):
    """The weight that each token has in the embeddings and in the head, and the head's bias."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    device = head.weight.device
    wide = torch.eye(head.weight.shape[1], dtype=torch.float32, device=device)
    with torch.inference_mode():
        bias = head.float()(torch.zeros_like(wide[:1]))
        return {"embeddings": embeddings.weight.float(), "head": (head(wide) - bias).T, "bias": bias}


def test_the_rows_of_the_new_tokens_are_trained_and_no_others(line):
    base, tuned, tokenizer = models(line)
    new = tokenizer.convert_tokens_to_ids(TOKENS)
    before, after = effective(base), effective(tuned)
    torch.testing.assert_close(after["bias"], before["bias"], rtol=0, atol=1e-6)
    for matrix in ("embeddings", "head"):
        change = (after[matrix] - before[matrix]).abs().amax(dim=1)
        assert (change[new] > 1e-3).all(), matrix
        change[new] = 0
        assert change.max() < 1e-6, matrix


def test_tied_rows_are_saved_once_and_no_whole_matrix_is(line):
    rows = len(AutoTokenizer.from_pretrained(line["root"] / "adapter"))
    saved = load_file(line["root"] / "adapter" / "adapter_model.safetensors")
    deltas = [name for name in saved if "trainable_tokens_delta" in name]
    phi = line["root"].name.startswith("phi")
    assert len(deltas) == (1 if line["tied"] or phi else 2)
    assert all(saved[name].shape == (2, SMALL["hidden_size"]) for name in deltas)
    whole = [name for name, weight in saved.items() if len(weight) >= rows]
    assert whole == (["base_model.model.lm_head.lora_B.weight"] if phi else [])


def test_every_linear_layer_of_the_body_is_still_adapted(line):
    config = json.loads((line["root"] / "adapter" / "adapter_config.json").read_text())
    saved = load_file(line["root"] / "adapter" / "adapter_model.safetensors")
    body = [name for name in saved if name.endswith("lora_A.weight") and "lm_head" not in name]
    assert len(body) == SMALL["num_hidden_layers"] * (6 if line["root"].name.startswith("phi") else 7)
    assert all(len(saved[name]) == config["r"] for name in body)


def test_base_and_tuned_answer_the_same_prompts(line):
    root, spec = line["root"], line["recipe"].evaluation
    assert examined(spec, root, line["kwargs"]).rows == 2


def test_a_prompt_reads_the_same_in_the_published_tokenizer(line):
    first, second = (AutoTokenizer.from_pretrained(line["root"] / name) for name in ("chat/tokenizer", "adapter"))
    here, there = (questions_of(line["root"] / "chat", tokenizer, 2) for tokenizer in (first, second))
    assert here == there
    assert here[0].prompt_ids[0] == first.convert_tokens_to_ids("<|im_start|>")


def chatml(folder):
    """The tiny base model in `folder` and its tokenizer with ChatML."""
    tokenizer = load_tokenizer(recipe_for(folder).base_model, folder, "tiny.yaml")
    return load_model(folder), tokenizer


def test_a_new_row_starts_as_the_mean_of_the_others(tmp_path):
    model, tokenizer = chatml(save_base("mistral-7b-fennec", tmp_path, 0, 0))
    means = [layer.weight.mean(0) for layer in (model.get_input_embeddings(), model.lm_head)]
    new = give_rows(model, tokenizer, tmp_path, "x")
    assert new == tokenizer.convert_tokens_to_ids(TOKENS) and len(model.lm_head.weight) == len(tokenizer)
    for layer, mean in zip((model.get_input_embeddings(), model.lm_head), means, strict=True):
        torch.testing.assert_close(layer.weight[new], mean.expand(2, -1))


def test_a_model_whose_vocabulary_has_all_tokens_stays_as_it_is(tmp_path):
    folder = save_base("mistral-7b-fennec", tmp_path, 0, 0)
    model, tokenizer = load_model(folder), AutoTokenizer.from_pretrained(folder)
    before = model.get_input_embeddings().weight.clone()
    assert give_rows(model, tokenizer, folder, "x") == []
    assert torch.equal(model.get_input_embeddings().weight, before)
    assert lora_config(LoraSpec(), model, [], "x").trainable_token_indices is None


def test_a_head_with_a_bias_and_no_row_to_spare_is_refused(tmp_path):
    model, tokenizer = chatml(save_base("phi-2", tmp_path, 0, 0))
    with pytest.raises(
        FinetuningError, match=r"tiny\.yaml: .* PhiForCausalLM, whose head has a bias and no row to spa"
    ):
        give_rows(model, tokenizer, tmp_path, "tiny.yaml")


@pytest.mark.parametrize("with_new_rows", [True, False])
def test_the_head_can_not_be_a_target(tmp_path, with_new_rows):
    model, tokenizer = chatml(save_base("mistral-7b-fennec", tmp_path, 0, 0))
    new = give_rows(model, tokenizer, tmp_path, "x") if with_new_rows else []
    with pytest.raises(FinetuningError, match=r"tiny\.yaml: lora\.target_modules: lm_head cannot be a target"):
        lora_config(LoraSpec(target_modules=("q_proj", "lm_head")), model, new, "tiny.yaml")


def test_rows_that_learned_nothing_are_refused(tmp_path):
    model, tokenizer = chatml(save_base("mistral-7b-fennec", tmp_path / "model", 0, 0))
    new = give_rows(model, tokenizer, tmp_path / "model", "x")
    tuned = get_peft_model(model, lora_config(LoraSpec(), model, new, "x"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    assert untrained_rows(tuned)
    tuned.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    fresh, _ = chatml(tmp_path / "model")
    give_rows(fresh, tokenizer, tmp_path / "model", "x")
    with pytest.raises(FinetuningError, match=r"rows of the new tokens in .*embed_tokens.* nothing was learned there"):
        load_adapter(fresh, tmp_path / "adapter", [3, 4, 5])
