"""Rows and answers beyond a model's positions are told before training, with what stretches them taken into account."""

import json

import pytest
from datasets import Dataset
from transformers import AutoConfig, Gemma3Config, GPT2Config, LlamaConfig, Phi3Config, Qwen2Config

from finetuning.base_model.positions import positions_of
from finetuning.errors import FinetuningError
from finetuning.memory.reach import longest_prompt, require_reach
from finetuning.recipe.recipe import Recipe
from finetuning.training.rows import require_rows_for

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (GPT2Config(n_positions=64), 64),
        (LlamaConfig(max_position_embeddings=4096), 4096),
        (LlamaConfig(max_position_embeddings=4096, rope_parameters={"rope_type": "linear", "factor": 2.0}), 8192),
        (LlamaConfig(max_position_embeddings=4096, rope_parameters={"rope_type": "dynamic", "factor": 2.0}), 8192),
        (LlamaConfig(max_position_embeddings=131072, rope_parameters=LLAMA3), 131072),
        (Qwen2Config(max_position_embeddings=32768, rope_parameters=YARN), 131072),
        (Phi3Config(max_position_embeddings=4096), 4096),
        (Gemma3Config(text_config={"max_position_embeddings": 999}), 999),
    ],
)
def test_positions_are_those_that_the_saved_configuration_says(config, limit, tmp_path):
    config.save_pretrained(tmp_path)
    assert positions_of(json.loads((tmp_path / "config.json").read_text())) == limit
    assert AutoConfig.from_pretrained(tmp_path).get_text_config().max_position_embeddings <= limit


@pytest.mark.parametrize(
    "config", [{}, {"alibi": True, "max_position_embeddings": 8}, {"max_position_embeddings": None}]
)
def test_some_models_have_no_limit(config):
    assert positions_of(config) is None


def test_a_configuration_of_old_is_read_as_well():
    assert positions_of({"max_position_embeddings": 10, "rope_scaling": {"type": "linear", "factor": 4}}) == 40


@pytest.fixture
def line(tmp_path):
    """Folders of a data set whose longest row has 30 tokens and whose longest prompt has 20, and a model's."""
    rows = [{"labels": [-100] * 20 + [7] * 5}, {"labels": [-100] * 5 + [7] * 5 + [-100] * 5 + [7] * 10 + [-100] * 5}]
    for split in ("train", "eval"):
        Dataset.from_list([row | {"input_ids": [9] * len(row["labels"])} for row in rows]).to_parquet(
            str(tmp_path / f"{split}.parquet")
        )

    def asked(limit, **evaluation):
        (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": limit}))
        recipe = Recipe.model_validate(
            {
                "name": "tiny",
                "summary": "tiny",
                "base_model": {"repo": "someone/model"},
                "dataset": {"sources": [{"generator": "linear-equations", "rows": 10}]},
                "evaluation": evaluation,
                "hub": {"repo": "tiny", "license": "mit"},
            }
        )
        require_reach(recipe, tmp_path, tmp_path)

    return asked


def test_a_row_that_is_longer_than_the_model_reads_names_the_length(line):
    with pytest.raises(FinetuningError, match=r"^tiny\.yaml: chat\.max_length: 1024, .* 30 tokens.*max_length: 29"):
        line(29, max_new_tokens=1)
    line(30, max_new_tokens=10)


def test_an_answer_that_would_end_beyond_names_how_long_it_may_be(line):
    told = r"^tiny\.yaml: evaluation\.max_new_tokens: 11, .*\(20 tokens\).*max_new_tokens: 10 or less"
    with pytest.raises(FinetuningError, match=told):
        line(30, max_new_tokens=11)


def test_a_prompt_is_what_comes_before_the_last_answer(line, tmp_path):
    assert (longest_prompt(tmp_path / "eval.parquet", 9), longest_prompt(tmp_path / "eval.parquet", 0)) == (20, 0)


def test_a_token_without_a_row_is_told(line, tmp_path):
    require_rows_for(tmp_path, 10, "tiny.yaml")
    with pytest.raises(FinetuningError, match=r"^tiny\.yaml: base_model: a row of the train split has the token 9"):
        require_rows_for(tmp_path, 9, "tiny.yaml")
