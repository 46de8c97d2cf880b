"""Versions of a published model through the public commands: a new one beside the old one, drift, and going back."""

import json
import re

import pytest
from huggingface_hub import HfApi, RepoFile

from resources.hub_server.local import local_hub
from tests.pipelines.command import IN_PROCESS, World
from tests.tiny_models import ZEPHYR, save_tiny_model

pytestmark = pytest.mark.long("several versions, each through the whole line")

REPO = "local/tiny-adapter"
GOOD = {"max_steps": 8, "learning_rate": 0.02, "per_device_train_batch_size": 4}
BAD = {"max_steps": 1, "learning_rate": 0.001, "per_device_train_batch_size": 4}
ANY = {"loss": {"min_gain": -100}, "chrf": {"min_gain": -1.0}, "empty": {"min_gain": -1.0}}


def recipe(base_model, training, **evaluation):
    source = {
        "generator": "linear-equations",
        "format": "question-answer",
        "columns": {"question": "Problem", "answer": "Solution"},
        "rows": 24,
    }
    return {
        "summary": "A tiny model that learns a little",
        "base_model": {"repo": str(base_model)},
        "dataset": {"sources": [source], "eval": {"fraction": 0.3}},
        "lora": {"r": 4, "lora_alpha": 8},
        "training": training,
        "evaluation": {"metrics": ["loss", "chrf"], "rows": 6, "max_new_tokens": 2, "gate": ANY, **evaluation},
        "hub": {"repo": "tiny-adapter", "license": "apache-2.0"},
    }


class Team:
    """One hub, and a world of its own for each machine that publishes to it."""

    def __init__(self, root, base_model):
        self.root, self.base_model = root, base_model

    def world(self, name, training, **evaluation):
        (self.root / name).mkdir(exist_ok=True)
        world = World(self.root / name, {"FINETUNING_HUB_STATE": str(self.root / "hub")})
        world.write_recipe("tiny", recipe(self.base_model, training, **evaluation))
        return world

    def api(self):
        return local_hub(self.root / "hub", grace=1.0)

    def head(self):
        with self.api() as hub:
            return HfApi(endpoint=hub.endpoint, token=hub.token).list_repo_commits(REPO)[0]

    def files(self, revision):
        with self.api() as hub:
            api = HfApi(endpoint=hub.endpoint, token=hub.token)
            entries = api.list_repo_tree(REPO, recursive=True, revision=revision)
            return {entry.path: entry.blob_id for entry in entries if isinstance(entry, RepoFile)}


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    base_model = save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("base") / "tiny-llama", ZEPHYR)
    return Team(tmp_path_factory.mktemp("team"), base_model)


def launched(world, job, config):
    """What the job answered for the partition `tiny`, run in one process."""
    path = world.root / f"{job}.json"
    path.write_text(json.dumps({**config, **json.loads(IN_PROCESS)}))
    command = ["dagster", "job", "execute", "-m", "pipelines.definitions", "-j", job, "-c", str(path)]
    return world.warm("-m", *command, "--tags", json.dumps({"dagster/partition": "tiny"}))


def observed(world):
    run = launched(world, "observe_hub", {})
    assert run.returncode == 0, run.stdout[-3000:]
    found = re.search(r"drift: (.*)", run.stdout)
    assert found
    return found[1]


def rolled_back(world, tag):
    return launched(world, "rollback", {"ops": {"roll_back": {"config": {"tag": tag}}}})


def report_of(world):
    return json.loads((world.folder("evaluation_report", "tiny") / "report.json").read_text())


def publication_of(world):
    return world.artifacts("tiny")["published_repo"]["summary"]


@pytest.fixture(scope="module")
def first(team):
    """The world that published the good version, and what it published."""
    world = team.world("ours", GOOD)
    run = world.materialize_warm("tiny")
    assert run.returncode == 0, run.stdout[-4000:]
    assert observed(world).startswith("none")
    return world, publication_of(world)


@pytest.fixture(scope="module")
def second(team, first):
    """The world that published a worse version after it on purpose, and what it published."""
    world, _ = first
    team.world("ours", BAD, no_worse_than_published=False)
    run = world.materialize_warm("tiny")
    assert run.returncode == 0, run.stdout[-4000:]
    return world, publication_of(world)


def test_a_version_that_is_worse_than_the_published_one_fails_its_verdict(team, first):
    world, good = first
    team.world("ours", BAD)
    worse = world.materialize_warm("tiny")
    assert worse.returncode == 1
    assert "loss is worse than that of the version that is published now beyond its noise" in worse.stdout
    beside = report_of(world)["published"]
    assert (beside["tag"], beside["commit"]) == (good["tag"], good["commit"])
    assert beside["metrics"]["loss"]["gain"] > 0
    page = (world.folder("evaluation_report", "tiny") / "report.md").read_text()
    assert f"Version `{good['tag']}` of {REPO}" in page and "| published" in page
    assert team.head().commit_id == good["commit"]


def test_a_verdict_from_before_the_published_version_is_not_enough(team, first):
    """Nobody publishes over a version that came while they evaluated."""
    early = team.world("early", {**GOOD, "max_steps": 7})
    unreachable = {"FINETUNING_HUB": "http://127.0.0.1:9", "HF_TOKEN": "hf_unreachable"}
    run = early.materialize("tiny", select="*evaluation_report", **unreachable)
    assert run.returncode == 0, run.stdout[-4000:]
    assert "not compared with the version that is published now, if there is one" in run.stdout
    assert report_of(early)["published"] is None
    alone = early.materialize_warm("tiny", select="published_repo")
    assert alone.returncode == 1 and "was given without a look at the version that is published now" in alone.stdout
    assert team.head().commit_id == first[1]["commit"]


def test_an_earlier_version_comes_back_and_stays(team, first, second):
    world, (good, bad) = first[0], (first[1], second[1])
    assert team.head().title == f"Publish tiny ({bad['tag']})"
    back = rolled_back(world, good["tag"])
    assert back.returncode == 0, back.stdout[-4000:]
    head = team.head()
    assert head.title == f"Publish tiny ({good['tag']})" and head.message.startswith("Rolled back to")
    assert head.commit_id not in (good["commit"], bad["commit"])
    assert team.files(head.commit_id) == team.files(good["commit"]) != team.files(bad["commit"])
    assert observed(world).startswith(f"version {good['tag']} is in force (by local), and {bad['tag']} was published")

    # What somebody went back from does not return by itself, neither here nor on a machine that begins with nothing.
    assert world.materialize_warm("tiny", select="published_repo").returncode == 0
    assert rolled_back(world, good["tag"]).returncode == 0
    bare = team.world("bare", BAD, no_worse_than_published=False)
    run = bare.materialize_warm("tiny")
    assert run.returncode == 0, run.stdout[-4000:]
    assert team.head().commit_id == head.commit_id


def test_going_back_to_what_was_never_published_names_what_was(first, second):
    unknown = rolled_back(first[0], "0" * 16)
    tags = sorted((first[1]["tag"], second[1]["tag"]))
    assert unknown.returncode == 1
    assert f"has no version '0000000000000000' to go back to; there are: {', '.join(tags)}" in unknown.stdout
