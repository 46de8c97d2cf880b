"""A base model whose files are damaged is an error that names the file, and says what it is."""

import json
import random
import shutil
from pathlib import Path

import pytest

from finetuning.base_model.quantized_base_model import load_dense
from finetuning.base_model.source import fetch
from finetuning.chat.tokenizer import load_tokenizer
from finetuning.errors import FinetuningError
from finetuning.recipe.base_model import BaseModelSpec
from tests.tiny_models import ZEPHYR, save_tiny_model

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"
GGUF = b"GGUF\3\0\0\0"
OTHER_WIDTH = (
    b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "num_attention_heads": 4}'
)


@pytest.fixture
def folder(tmp_path):
    return save_tiny_model("smollm2-135m", tmp_path / "model", ZEPHYR)


def read(folder: Path) -> None:
    """Read tokenizer and weights, as the pipeline does."""
    gguf = {"gguf": "x.gguf"} if (folder / "x.gguf").exists() else {}
    spec = BaseModelSpec.model_validate({"repo": str(folder), **gguf})
    fetch(spec, "", None, "x.yaml")  # pyright: ignore[reportArgumentType] # no hub is asked for a folder
    load_tokenizer(spec, folder, "x.yaml")
    load_dense(spec, folder, "float32", "x.yaml")


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        *(
            (name, POINTER, f"{name} is a Git LFS pointer")
            for name in ("model.safetensors", "x.gguf", "tokenizer.json")
        ),
        ("model.safetensors", b"", "cut short or damaged: it has 0 bytes"),
        ("model.safetensors", b"\xff" * 500, "its header alone would be longer"),
        ("model.safetensors", b"\0" * 100, "its header cannot be read"),
        ("model.safetensors", b"\x02" + b"\0" * 7 + b"[]", "its header cannot be read"),
        ("model.safetensors", b"\x08" + b"\0" * 7 + b'{"a": 1}', "its header cannot be read"),
        ("config.json", b"[]", "config.json holds no JSON object"),
        ("config.json", b"{", "config.json is no JSON"),
        ("config.json", b"[" * 100_000, "config.json is no JSON"),
        ("config.json", OTHER_WIDTH, "transformers cannot load"),
        ("tokenizer.json", b"[]", "tokenizer.json holds no JSON object"),
        ("tokenizer.json", b"\xff\xfe\0", "tokenizer.json is no JSON"),
        ("tokenizer_config.json", b"[]", "tokenizer_config.json holds no JSON object"),
        ("x.gguf", b"", "x.gguf is no GGUF file"),
        ("x.gguf", b"PK\3\4", "x.gguf is no GGUF file"),
        ("x.gguf", GGUF + b"\xff" * 64, "transformers cannot load"),
        ("x.gguf", GGUF + b"\1" + b"\0" * 7 + b"\1", "transformers cannot load"),
    ],
)
def test_a_damaged_file_is_named(folder, file, content, told):
    (folder / file).write_bytes(content)
    with pytest.raises(FinetuningError, match=told) as error:
        read(folder)
    assert str(error.value).startswith("x.yaml: base_model: ")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_weights_that_were_cut_short_are_told_by_their_size(folder, kept):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(FinetuningError, match=f"its header says {len(whole):,}|its header alone would be longer"):
        read(folder)


@pytest.mark.parametrize("key", ["hidden_size", "vocab_size", "num_attention_heads", "model_type"])
@pytest.mark.parametrize("value", ["x", -1, [], {}])
def test_a_configuration_that_makes_no_model_is_an_error_of_the_recipe(folder, key, value):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(FinetuningError, match=r"^x\.yaml: base_model: "):
        read(folder)


def test_a_whole_model_is_read(folder):
    read(folder)


FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("sound") / "model", ZEPHYR)


@pytest.mark.parametrize("seed", range(25))
def test_bytes_that_changed_anywhere_are_weights_or_a_clear_error(sound, tmp_path, seed):
    draw = random.Random(seed)
    folder = Path(shutil.copytree(sound, tmp_path / "model"))
    file = folder / draw.choice(FILES)
    content = bytearray(file.read_bytes())
    for _ in range(draw.choice((1, 3, 30))):
        place = draw.randrange(min(len(content), draw.choice((8, 200, len(content)))))
        match draw.choice(("change", "insert", "remove")):
            case "change":
                content[place] = draw.randrange(256)
            case "insert":
                content[place:place] = draw.choice((b"\xff\xff", b"[", b'"', b"{}", b"null", b"\0", b"1e999"))
            case "remove":
                del content[place : place + draw.randrange(1, 20)]
    file.write_bytes(content)
    try:
        read(folder)
    except FinetuningError as error:
        assert str(error).startswith("x.yaml: base_model")
