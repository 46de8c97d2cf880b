"""What a stranger finds in the published repos: code that runs, a recipe that is right, curves, and no private text."""

import json
import re
import socket
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard
from transformers import AutoTokenizer

from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.hub.event_files import read_events
from finetuning.recipe import loading as recipes
from finetuning.recipe.dataset import sources
from resources.hub_server.local import local_hub
from tests.card_code import as_printed
from tests.llama_cpp import LlamaCpp
from tests.pipelines.command import ROOT, World
from tests.pipelines.main_line import PASSES
from tests.tiny_models import ZEPHYR, save_tiny_model

pytestmark = pytest.mark.long("several recipes, each through the whole line, and the code on their cards")

# Words of the data that are nowhere else: of rows to train on, of the eval split, and of a row that is dropped.
TRAINED, EVALUATED, DROPPED = "quokka", "axolotl", "narwhal"
BASE = "local/tiny-base"


def rows(word: str, count: int) -> str:
    """A JSON Lines file of conversations, each with words of its own."""
    talks = [
        [
            {"role": "user", "content": f"What says {word}{i}x?"},
            {"role": "assistant", "content": f"It says {word}{i}y."},
        ]
        for i in range(count)
    ]
    return "".join(json.dumps({"messages": messages}) + "\n" for messages in talks)


def recipe_in(folder: Path) -> dict:
    (folder / "private").mkdir()
    (folder / "private" / "rows.jsonl").write_text(
        rows(TRAINED, 12) + json.dumps({"messages": [{"role": DROPPED, "content": DROPPED}]}) + "\n"
    )
    (folder / "private" / "eval").mkdir()
    (folder / "private" / "eval" / "rows.jsonl").write_text(rows(EVALUATED, 8))
    source = {"format": "messages", "system": "You know what animals say."}
    return {
        "summary": "A tiny model that learns what animals say",
        "base_model": {"repo": BASE},
        "dataset": {
            "sources": [{**source, "files": [str(folder / "private" / "rows.jsonl")]}],
            "eval": {"sources": [{**source, "files": [str(folder / "private" / "eval" / "rows.jsonl")]}]},
        },
        "checks": {"bad_rows": {"limit": 0.5}},
        "lora": {"r": 4, "lora_alpha": 8},
        "training": {"max_steps": 3, "per_device_train_batch_size": 2, "logging_steps": 1},
        "evaluation": {
            "metrics": ["exact-match"],
            "max_new_tokens": 4,
            "gate": PASSES,
        },
        "merge": {"dtype": "float32", "gguf": "f16"},
        "hub": {"repo": "animals", "license": "apache-2.0"},
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A world in which one recipe was published with samples and another one without, and all that is on its hub."""
    world = World(tmp_path_factory.mktemp("world"))
    base = save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("base") / "tiny-llama", ZEPHYR)
    with local_hub(world.root / "hub", grace=60.0) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo(BASE)
        api.upload_folder(repo_id=BASE, folder_path=base)
        recipe = recipe_in(world.root)
        world.write_recipe("animals", recipe)
        silent = recipe | {
            "evaluation": recipe["evaluation"] | {"samples": 0},
            "hub": recipe["hub"] | {"repo": "silent"},
        }
        world.write_recipe("silent", silent)
        for name in ("animals", "silent"):
            run = world.materialize_warm(name)
            assert run.returncode == 0, run.stdout[-4000:]
        for name in ("animals", "animals-merged", "silent"):
            api.snapshot_download(f"local/{name}", local_dir=world.root / "published" / name)
    return world


def published(world: World, *names: str) -> dict[str, bytes]:
    """All files of those repos, by `repo/path`."""
    root = world.root / "published"
    paths = [
        path for name in names for path in (root / name).rglob("*") if path.is_file() and ".cache" not in path.parts
    ]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def words_in(files: dict[str, bytes]) -> dict[str, set[str]]:
    """The words of the data in each file that has any."""
    pattern = re.compile(rb"(?:%s)\w*" % b"|".join(word.encode() for word in (TRAINED, EVALUATED, DROPPED)))
    found = {name: {word.decode() for word in pattern.findall(content)} for name, content in files.items()}
    return {name: words for name, words in found.items() if words}


def test_the_repo_holds_adapter_tokenizer_report_recipe_and_curves(world):
    names = {name.removeprefix("animals/") for name in published(world, "animals")}
    assert names - {".gitattributes"} == {
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "recipe.yaml"),
        *("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"),
        *(f"evaluation/{name}" for name in ("report.md", "report.json", "metrics.png", "loss.png")),
        next(name for name in names if re.fullmatch(r"runs/animals/events\.out\.tfevents\.\d+\.animals", name)),
    }
    assert {"animals-merged/recipe.yaml", "animals-merged/model.safetensors"} <= set(published(world, "animals-merged"))


def test_of_the_data_there_are_the_samples_that_the_recipe_allows_and_no_other_word(world):
    found = words_in(published(world, "animals", "animals-merged"))
    assert set(found) == {"animals/evaluation/report.md", "animals-merged/evaluation/report.md"}
    for words in found.values():
        assert {re.sub(r"\d+[xy]$", "", word) for word in words} == {EVALUATED}
        assert len({re.findall(r"\d+", word)[0] for word in words}) == 3


def test_with_no_samples_no_word_of_the_data_is_published(world):
    files = published(world, "silent")
    assert not words_in(files)
    page = files["silent/evaluation/report.md"].decode()
    assert "the recipe says `evaluation.samples: 0`" in page and "### Stayed wrong: 8 of 8" in page
    assert re.search(r"\| unknown role … +\| +1 \| rows\.jsonl:13", page)


def test_nothing_tells_of_the_machine_that_trained(world):
    token = (world.root / "hub" / "token").read_text().strip()
    private = [str(world.root), str(ROOT), str(Path.home()), sys.prefix, token]
    for name, content in published(world, "animals", "animals-merged", "silent").items():
        assert f".{socket.gethostname()}." not in f"{name}."
        assert not [text for text in private if text.encode() in content], name
        # A card may say that the hub is on loopback, with the port left to a file; never which port it was.
        assert not re.search(rb"(127\.0\.0\.1|localhost):\d", content), name


def test_the_curves_are_there_and_no_text_beside_them(world):
    (path,) = (world.root / "published" / "animals" / "runs").rglob("events*")
    values = [value for event in read_events(path) for value in event.summary.value]
    assert {"train/loss", "train/learning_rate", "eval/loss"} <= {value.tag for value in values}
    assert {value.WhichOneof("value") for value in values} == {"simple_value"}


def test_the_published_recipe_is_right_and_says_the_same(world):
    path = world.root / "published" / "animals" / "recipe.yaml"
    checked = world.warm("-m", "finetuning.recipe", "validate", str(path))
    # Rows of files are not published: whoever has them puts them there.
    lines = checked.stdout.splitlines()
    missing = [line.partition(".files: no file matches ")[2].partition(";")[0] for line in lines]
    assert missing == ["'rows.jsonl'", "'eval/rows.jsonl'"], checked.stdout
    assert path.read_bytes() == (world.root / "published" / "animals-merged" / "recipe.yaml").read_bytes()
    ours, theirs = recipes.load_file(world.root / "recipes" / "animals.yaml"), recipes.load_file(path)
    for section in ("chat", "checks", "lora", "training", "evaluation", "merge", "hub"):
        assert getattr(ours, section) == getattr(theirs, section)
    commit = world.artifacts("animals")["quantized_base_model"]["resolved"]["base_model"]["revision"]
    assert theirs.base_model.model_dump() == ours.base_model.model_dump() | {"revision": commit}
    assert [source.files for source, _ in sources(theirs.dataset).values()] == [("rows.jsonl",), ("eval/rows.jsonl",)]
    assert "dataset.sources[0].files, dataset.eval.sources[0].files" in path.read_text()


@pytest.mark.parametrize("name", ["animals", "animals-merged"])
def test_the_code_on_the_card_answers_as_it_stands_there(world, name, tmp_path):
    card = published(world, name)[f"{name}/README.md"].decode()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    (shell,) = re.findall(r"```bash\n(.*?)```", card, re.DOTALL)
    with local_hub(world.root / "hub", grace=1.0):
        answered = as_printed(shell, code, tmp_path, world.environment)
    assert answered.returncode == 0, answered.stdout[-3000:]
    assert ("BitsAndBytesConfig(" in code) == (name == "animals")


def test_the_published_gguf_file_is_one_that_llama_cpp_loads_and_a_modelfile_names(world):
    folder = world.root / "published" / "animals-merged"
    messages = [
        {"role": "system", "content": "You know what animals say."},
        {"role": "user", "content": "What says a?"},
    ]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert LlamaCpp(folder / "animals.f16.gguf").prompt(messages) == Renderer(tokenizer).prompt(Conversation(messages))
    lines = (folder / "Modelfile").read_text().splitlines()
    assert lines[0] == "FROM ./animals.f16.gguf" and f'PARAMETER stop "{tokenizer.eos_token}"' in lines
    assert 'SYSTEM """You know what animals say."""' in lines
    assert "`ollama create animals-merged -f Modelfile`, which holds" in (folder / "README.md").read_text()


def test_the_card_says_what_it_was_made_of_in_the_hubs_own_words(world):
    card = ModelCard(published(world, "animals")["animals/README.md"].decode())
    found, data = world.artifacts("animals"), card.data
    assert (data["license"], data["base_model"], data["base_model_relation"]) == ("apache-2.0", BASE, "adapter")
    result, *_ = data["eval_results"]
    report = json.loads((world.folder("evaluation_report", "animals") / "report.json").read_text())
    assert (result.metric_type, result.metric_value) == ("exact_match", report["metrics"]["exact-match"]["tuned"])
    for fact in (
        found["quantized_base_model"]["resolved"]["base_model"]["revision"],
        found["raw_dataset"]["summary"]["sources"][0]["revision"],
        found["lora_adapter"]["fingerprint"],
        *report["verdict"]["reasons"],
        "8 rows of the eval split",
        "12 rows to train on",
        f"trl {found['lora_adapter']['versions']['trl']}",
    ):
        assert fact in card.text, fact
    merged = ModelCard(published(world, "animals-merged")["animals-merged/README.md"].decode()).data
    assert (merged["base_model_relation"], merged["eval_results"]) == ("finetune", None)


def test_a_card_that_the_hub_refuses_is_an_error_that_says_why(world):
    code = """
import sys
from huggingface_hub import ModelCardData
from finetuning.hub.published_repo import require_valid
require_valid(ModelCardData(license="mit"), sys.argv[1], "a.yaml")
try:
    require_valid(ModelCardData(license="MIT"), sys.argv[1], "a.yaml")
except Exception as error:
    print(repr(error))
"""
    with local_hub(world.root / "hub", grace=1.0) as hub:
        said = world.python("-c", code, hub.endpoint).stdout
    assert (
        "FinetuningError(" in said
        and 'a.yaml: nothing was published: the hub refuses the model card: "license"' in said
    )
