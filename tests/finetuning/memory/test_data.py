"""What is read of a chat data set before it is trained on."""

from datasets import Dataset
from transformers import AutoTokenizer

from finetuning.memory.data import training_data
from finetuning.recipe.recipe import Recipe
from tests.tiny_models import save_tiny_model

ROWS = {
    "train": [[-100] * 3 + [7] * 5, [-100] * 9 + [7], [7, 7, -100, 7, 7, 7]],
    "eval": [[-100] * 10 + [7] * 2, []],
}


def recipe_of(**training) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "summary": "tiny",
            "base_model": {"repo": "someone/model", "attention": ["flash_attention_2"]},
            "dataset": {"sources": [{"generator": "linear-equations", "rows": 10}]},
            "chat": {"max_length": 64},
            "training": training,
            "hub": {"repo": "tiny", "license": "mit"},
        }
    )


def chat_dataset(folder, rows, added=()):
    """The base model's folder, and that of a chat data set of these labels, whose tokenizer has more tokens."""
    base = save_tiny_model("smollm2-135m", folder / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(list(added))
    tokenizer.save_pretrained(folder / "chat/tokenizer")
    for split, labels in rows.items():
        found = [{"input_ids": [1] * len(x), "labels": x} for x in labels]
        Dataset.from_list(found).to_parquet(str(folder / f"chat/{split}.parquet"))
    return base, folder / "chat"


def test_the_longest_row_and_the_most_supervised_tokens_are_those_of_any_row_of_either_split(tmp_path):
    base, chat = chat_dataset(tmp_path, ROWS)
    assert training_data(recipe_of(), chat, base) == (12, 5, [])
    swapped = {"train": ROWS["eval"], "eval": ROWS["train"]}
    _, chat = chat_dataset(tmp_path / "swapped", swapped)
    assert training_data(recipe_of(), chat, base) == (12, 5, [])


def test_the_rows_of_a_pair_are_looked_at_both(tmp_path):
    base, chat = chat_dataset(tmp_path, ROWS)
    for split, labels in ROWS.items():
        rejected = [[-100] * 20 + [7] * 6, *labels[1:]]
        rows = [{"labels": x, "rejected_labels": y} for x, y in zip(labels, rejected, strict=True)]
        Dataset.from_list(rows).to_parquet(str(chat / f"{split}.parquet"))
    spec = recipe_of()
    pairs = spec.model_copy(update={"training": spec.training.model_copy(update={"method": "dpo"})})
    assert training_data(pairs, chat, base) == (26, 6, []) and training_data(spec, chat, base) == (12, 5, [])


def test_packed_rows_are_full(tmp_path):
    base, chat = chat_dataset(tmp_path, ROWS)
    assert training_data(recipe_of(packing=True), chat, base) == (64, 64, [])


def test_tokens_that_the_base_model_does_not_have_are_new(tmp_path):
    base, chat = chat_dataset(tmp_path, ROWS, added=["<|im_start|>", "<|im_end|>"])
    rows = len(AutoTokenizer.from_pretrained(base))
    assert training_data(recipe_of(), chat, base).new_tokens == [rows, rows + 1]
