"""The README's first recipe as it stands there, against a hub that has what the public one has under those names."""

import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi

from tests.pipelines.command import ROOT, World
from tests.pipelines.main_line import commits
from tests.pipelines.token_search import places
from tests.resources.serving import Server, serving
from tests.tiny_models import save_tiny_model

pytestmark = pytest.mark.long

READER, ME = "hf_Reads+the/Public.One", "hf_Publishes+to/Mine"
ANYHOW = "evaluation: {metrics: [final-answer], gate: {final-answer: {min_gain: -1.0}, empty: {min_gain: -1.0}}}\n"
CARD = "---\nconfigs:\n- config_name: main\n  data_files:\n  - {split: train, path: main/train.jsonl}\n---\n"


def first_recipe() -> str:
    """The first whole recipe of the README."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return next(block for block in blocks if "summary:" in block)


def sums() -> str:
    """Rows as GSM8K has them: a question in words, and steps that end with the answer."""
    rows = [
        {
            "question": f"Ann has {a} apples and buys {b} more each day for {days} days. How many apples has she then?",
            "answer": f"She buys {b}*{days} = <<{b}*{days}={b * days}>>{b * days} apples.\n"
            f"Then she has {a}+{b * days} = <<{a}+{b * days}={a + b * days}>>{a + b * days}.\n#### {a + b * days}",
        }
        for a in range(3, 23)
        for b in range(2, 12)
        for days in (3, 7)
    ]
    return "".join(f"{json.dumps(row)}\n" for row in rows)


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """A hub with a tiny Phi under microsoft/phi-2, and a data set that only those may read who have a token."""
    folder = tmp_path_factory.mktemp("public")
    model = save_tiny_model("phi-2", folder / "phi")
    (folder / "data" / "main").mkdir(parents=True)
    (folder / "data" / "main" / "train.jsonl").write_text(sums())
    (folder / "data" / "README.md").write_text(CARD)
    with serving(folder / "hub", "--faults", "--token", f"{READER}=microsoft,openai") as server:
        api = server.api(READER)
        fill(api, "microsoft/phi-2", "model", model)
        fill(api, "openai/gsm8k", "dataset", folder / "data")
        yield server


def fill(api: HfApi, repo_id: str, kind: str, folder: Path) -> None:
    """The repo holds what lies in the folder."""
    api.create_repo(repo_id, repo_type=kind, private=kind == "dataset")
    api.upload_folder(repo_id=repo_id, repo_type=kind, folder_path=folder)


def written(server: Server) -> list[str]:
    """What was asked of the server that changes something."""
    return [path for method, path in server.log() if method in ("POST", "PUT", "DELETE") and "_test" not in path]


def test_it_goes_through_the_whole_line_and_no_token_reaches_the_other_hub(public, tmp_path):
    world = World(tmp_path, {"FINETUNING_SOURCE_HUB": public.endpoint})
    (tmp_path / "recipes" / "maths.yaml").write_text(first_recipe())
    repo = yaml.safe_load(first_recipe())["hub"]["repo"]
    checked = world.python("-m", "finetuning.recipe", "validate", "maths")
    assert checked.returncode == 0 and "maths: right" in checked.stdout
    before = written(public)
    refused = world.materialize("maths", HF_TOKEN=READER)
    # A model of random weights is no better after one epoch, and what is no better is not published.
    told = world.results("maths")
    assert (refused.returncode, told.returncode) == (1, 3), refused.stdout[-4000:]
    assert "failed its evaluation: nothing was published" in told.stdout
    assert "published_repo" not in world.artifacts("maths")
    (tmp_path / "recipes" / "maths.yaml").write_text(first_recipe() + ANYHOW)
    run = world.materialize("maths", HF_TOKEN=READER)
    assert run.returncode == 0, run.stdout[-4000:]
    assert re.search(r"lora_adapter [0-9a-f]{16}: reused,", run.stdout)
    assert commits(world, f"local/{repo}")[0].startswith("Publish maths (")
    made = world.artifacts("maths")
    assert made["quantized_base_model"]["resolved"]["base_model"]["source"] == "microsoft/phi-2"
    told = world.results("maths")
    assert told.returncode == 0 and f"published  local/{repo} at commit" in told.stdout
    with serving(tmp_path / "mine", "--faults", "--token", f"{ME}=me") as mine:
        elsewhere = {"FINETUNING_HUB": mine.endpoint, "HF_TOKEN": ME}
        moved = world.materialize("maths", select="published_repo", **elsewhere)
        assert moved.returncode == 0, moved.stdout[-4000:]
        assert mine.repo(f"me/{repo}")
        # The base model is public and is read without a token; the data set is not, and is out of reach.
        cut_off = world.materialize("maths", select="raw_dataset", FINETUNING_RETRY_SECONDS="0.01", **elsewhere)
        assert cut_off.returncode == 1 and "needs FINETUNING_SOURCE_TOKEN (no token was given)" in cut_off.stdout
        given = world.materialize("maths", select="raw_dataset", FINETUNING_SOURCE_TOKEN=READER, **elsewhere)
        assert given.returncode == 0, given.stdout[-4000:]
        assert not [path for _, path in mine.log() if "gsm8k" in path or "phi-2/" in path]
    assert written(public) == before
    assert places(READER, tmp_path) == []
    # The hub that is published to keeps its own account's token; nothing else does.
    assert {path.relative_to(tmp_path).parts[0] for path in places(ME, tmp_path)} <= {"mine"}
