"""One conversation, token by token the same in training, in evaluation and from the tokenizer that is published."""

import json

import pyarrow.parquet as pq
import pytest
from tokenizers import processors
from transformers import AutoTokenizer

from finetuning.chat.chat_dataset import write_chat
from finetuning.chat.tokenizer import load_tokenizer
from finetuning.checks.judgement import judge, require
from finetuning.dataset.raw_dataset import write_raw
from finetuning.evaluation.exam import questions_of
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.recipe.dataset import DatasetSpec, EvalSpec
from finetuning.recipe.loading import find, load
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.source import SourceSpec
from finetuning.tokens import NOT_SUPERVISED
from tests.conftest import smollm2_folder, train_tiny_tokenizer
from tests.tiny_models import ZEPHYR

GOLDEN = [
    {"role": "system", "content": "You solve maths problems step by step."},
    {"role": "user", "content": "What is 2 + 3?"},
    {"role": "assistant", "content": "2 + 3 = 5\n#### 5"},
    {"role": "user", "content": "And twice that — in ½ a line?"},
    {"role": "assistant", "content": "5 · 2 = 10\n\n#### 10"},
]
OTHER = [{"role": "user", "content": "How many legs has a spider?"}, {"role": "assistant", "content": "#### 8"}]


def with_its_tokenizer(recipe: Recipe, folder, begins: bool = False) -> tuple[Recipe, object]:
    """The recipe with a tokenizer like its own: the real one where it ships with a package, else a tiny one.

    Args:
        begins: whether the tiny one puts its begin-of-sequence token before every text.
    """
    if recipe.base_model.package:
        return recipe, load_tokenizer(recipe.base_model, smollm2_folder(), recipe.file)
    tokenizer = train_tiny_tokenizer()
    if begins:
        first = ("<s>", tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[first])
    tokenizer.chat_template = ZEPHYR if recipe.base_model.chat_template == "native" else None
    tokenizer.save_pretrained(folder)
    spec = BaseModelSpec.model_validate(recipe.base_model.model_dump() | {"repo": str(folder)})
    return recipe.model_copy(update={"base_model": spec}), load_tokenizer(spec, folder, recipe.file)


def prepared(root, recipe: Recipe, tokenizer, train, held_out):
    """A folder with both splits of one conversation each."""
    root.mkdir()
    sources = {}
    for name, messages in (("train", train), ("eval", held_out)):
        path = root / f"{name}.jsonl"
        path.write_text(json.dumps({"messages": messages}) + "\n")
        sources[name] = (SourceSpec(files=[str(path)], format="messages"),)
    dataset = DatasetSpec(sources=sources["train"], eval=EvalSpec(sources=sources["eval"]))
    write_raw(dataset, {"train-00": "1", "eval-00": "1"}, root / "raw", api=None, file=recipe.file)
    chat = recipe.chat.model_copy(update={"max_length": 1024})
    recipe = recipe.model_copy(update={"dataset": dataset, "chat": chat})
    summary = write_chat(root / "raw", root / "chat", recipe, tokenizer)
    require(judge(summary.checks, recipe))
    return root / "chat"


@pytest.fixture(scope="module", params=sorted(find()))
def made(request, tmp_path_factory):
    """The golden conversation as a recipe's train split, as its eval split, and the tokenizer that is saved with it."""
    root = tmp_path_factory.mktemp(request.param)
    recipe, tokenizer = with_its_tokenizer(load(request.param), root / "model")
    train = prepared(root / "train", recipe, tokenizer, GOLDEN, OTHER)
    evaluation = prepared(root / "eval", recipe, tokenizer, OTHER, GOLDEN)
    return train, evaluation, AutoTokenizer.from_pretrained(train / "tokenizer")


def row(path) -> dict:
    (found,) = pq.read_table(path).to_pylist()
    return found


def test_training_sees_what_the_published_tokenizer_makes(made):
    train, _, tokenizer = made
    ids = row(train / "train.parquet")["input_ids"]
    assert ids == tokenizer.apply_chat_template(GOLDEN, tokenize=True)["input_ids"]
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template(GOLDEN, tokenize=False)


def test_both_splits_hold_the_same_tokens_and_labels(made):
    train, evaluation, _ = made
    one, other = row(train / "train.parquet"), row(evaluation / "eval.parquet")
    assert (one["input_ids"], one["labels"]) == (other["input_ids"], other["labels"])


def test_evaluation_asks_what_precedes_the_answer_in_training(made):
    train, evaluation, tokenizer = made
    trained = row(train / "train.parquet")
    (question,) = questions_of(evaluation, tokenizer, 1)
    prompt = question.prompt_ids
    assert prompt == tokenizer.apply_chat_template(GOLDEN[:-1], tokenize=True, add_generation_prompt=True)["input_ids"]
    assert trained["input_ids"][: len(prompt)] == prompt
    answer = [label for label in trained["labels"][len(prompt) :] if label != NOT_SUPERVISED]
    assert trained["input_ids"][len(prompt) : len(prompt) + len(answer)] == answer
    assert tokenizer.decode(answer[:-1]) == GOLDEN[-1]["content"] == question.reference
    assert trained["labels"][len(prompt) - 1] == NOT_SUPERVISED


def test_every_answer_is_learned_with_its_stop_token(made, request):
    train, _, tokenizer = made
    answers = [message["content"] for message in GOLDEN if message["role"] == "assistant"]
    if load(request.node.callspec.params["made"]).training.method == "grpo":
        answers = answers[-1:]  # the one that is drawn instead, and compared with
    found = row(train / "train.parquet")
    stop = tokenizer.decode([next(label for label in reversed(found["labels"]) if label != NOT_SUPERVISED)])
    learned = tokenizer.decode([label for label in found["labels"] if label != NOT_SUPERVISED])
    assert learned == "".join(answer + stop for answer in answers)
    assert stop in ("</s>", "<|im_end|>")


@pytest.mark.parametrize("name", ["gemma-2b", "mistral-7b-fennec", "zephyr-7b-beta"])
def test_a_model_whose_tokenizer_begins_every_text_sees_that_token_once(name, tmp_path):
    recipe, tokenizer = with_its_tokenizer(load(name), tmp_path / "model", begins=True)
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    train = prepared(tmp_path / "chat", recipe, tokenizer, GOLDEN, OTHER)
    ids = row(train / "train.parquet")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    published = AutoTokenizer.from_pretrained(train / "tokenizer")
    assert ids == published.apply_chat_template(GOLDEN, tokenize=True)["input_ids"]
