"""Which version of a base model a folder holds: all that an answer depends on is in its revision."""

import json
from pathlib import Path

import pytest

from finetuning.base_model.kinds import require_own_code
from finetuning.base_model.source import hash_of_model, repo_name
from finetuning.errors import FinetuningError
from finetuning.recipe.base_model import BaseModelSpec
from resources.hub_server.store import is_repo_id

WITHOUT_INDEX = {
    "config.json": "{}",
    "tokenizer.json": "{}",
    "chat_template.jinja": "{{ messages }}",
    "additional_chat_templates/tool_use.jinja": "{{ tools }}",
    "layers/attention.py": "pass",
    "qwen.tiktoken": "YQ== 0",
    "model.safetensors": "weights",
}
INDEX = {"weight_map": {"a": "model.safetensors", "b": "more/b.safetensors"}}
FILES = WITHOUT_INDEX | {"model.safetensors.index.json": json.dumps(INDEX), "more/b.safetensors": "weights"}
NEVER_READ = {
    "README.md": "About it",
    "pytorch_model.bin": "weights",
    "checkpoint-5/model.safetensors": "weights",
    "model.Q4_1.gguf": "weights",
    ".git/HEAD": "main",
    ".cache/huggingface/download.json": "{}",
    "layers/__pycache__/attention.pyc": "code",
}


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_each_file_that_is_read_is_in_the_revision(name, tmp_path):
    before = hash_of_model(written(tmp_path, FILES))
    assert hash_of_model(written(tmp_path, {name: FILES[name] + " "})) != before
    (tmp_path / name).unlink()
    assert hash_of_model(tmp_path) != before


@pytest.mark.parametrize("name", NEVER_READ)
def test_what_is_never_read_is_not(name, tmp_path):
    before = hash_of_model(written(tmp_path, FILES))
    assert hash_of_model(written(tmp_path, {name: NEVER_READ[name]})) == before


def test_of_many_gguf_files_the_one_that_is_read_counts(tmp_path):
    written(tmp_path, {"a.gguf": "a", "b/c.gguf": "c"})
    before = hash_of_model(tmp_path, "b/c.gguf")
    assert hash_of_model(written(tmp_path, {"a.gguf": "A"}), "b/c.gguf") == before
    assert hash_of_model(written(tmp_path, {"b/c.gguf": "C"}), "b/c.gguf") != before


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": [1]}'])
def test_an_index_that_cannot_be_read_is_an_error_of_whoever_loads_the_model(index, tmp_path):
    assert hash_of_model(written(tmp_path, WITHOUT_INDEX | {"model.safetensors.index.json": index}))


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("phi-2", "phi-2-nf4-0a1b2c3d"),
        ("my model (v2)", "my-model-v2-nf4-0a1b2c3d"),
        ("a..b", "a-b-nf4-0a1b2c3d"),
        ("模型", "model-nf4-0a1b2c3d"),
        ("x" * 120, "x" * 50 + "-nf4-0a1b2c3d"),
    ],
)
def test_two_base_models_from_folders_of_one_name_have_repos_of_their_own(folder, name, tmp_path):
    specs = [BaseModelSpec.model_validate({"repo": str(tmp_path / place / folder)}) for place in ("a", "b")]
    assert [repo_name(spec, "0a1b2c3d4e5f6071") for spec in specs] == [name, name]
    assert repo_name(specs[1], "1" * 16) == name.replace("0a1b2c3d", "1" * 8)
    assert is_repo_id("models", f"local/{name}")


def test_a_folder_that_is_a_link_is_walked_and_one_within_itself_ends(tmp_path):
    outside = written(tmp_path / "outside", {"tool_use.jinja": "{{ tools }}"})
    folder = written(tmp_path / "model", WITHOUT_INDEX)
    (folder / "more").symlink_to(outside)
    (folder / "itself").symlink_to(folder)
    before = hash_of_model(folder)
    (outside / "tool_use.jinja").write_text("{{ other }}")
    assert hash_of_model(folder) != before


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("classes", ["other/repo--file.Class", [None, "other/repo--file.Class"]])
def test_code_of_another_repo_is_refused(tmp_path, name, classes):
    folder = written(tmp_path, {name: json.dumps({"auto_map": {"AutoX": classes}})})
    with pytest.raises(FinetuningError, match=r"trust_remote_code: .*auto_map\.AutoX is other/repo--file\.Class"):
        require_own_code(folder, "x.yaml")
    require_own_code(written(tmp_path, {name: json.dumps({"auto_map": {"AutoX": "file.Class"}})}), "x.yaml")
