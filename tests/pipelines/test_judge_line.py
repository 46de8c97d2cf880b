"""The main line with a judge: asked over HTTP, paid for once, and the key is nowhere."""

import json
import re

import pytest

from finetuning.feedback.entries import keep, parsed
from tests.judges import Said, judging, prefers
from tests.pipelines.command import World
from tests.pipelines.main_line import changed
from tests.tiny_models import ZEPHYR, save_tiny_model, talkative

pytestmark = pytest.mark.long("several runs of the whole line")

KEY = "judge-key-that-is-to-be-nowhere"
CHOICES = 10


@pytest.fixture(scope="module")
def base_model(tmp_path_factory):
    return talkative(
        save_tiny_model(
            "smollm2-135m", tmp_path_factory.mktemp("base") / "tiny-llama", ZEPHYR, max_position_embeddings=2048
        )
    )


def choose(folder, number):
    """Somebody prefers the answer that has more letters."""
    answers = [{"model": "tiny", "content": f"{number} and more"}, {"model": "tiny/base", "content": f"{number}"}]
    said = {"messages": [{"role": "user", "content": f"{number}?"}], "answers": answers, "preferred": "tiny"}
    keep(folder / "tiny", parsed(said), "v1")


def report_of(world):
    return json.loads((world.folder("evaluation_report", "tiny") / "report.json").read_text())


def test_an_exam_that_was_broken_off_goes_on_paying_for_nothing_twice_and_the_key_is_nowhere(
    tmp_path, recipe, base_model
):
    for number in range(CHOICES):
        choose(tmp_path / "feedback", number)
    with judging(prefers(len)) as server:
        judge = {"endpoint": server.url, "name": "fake", "parallel": 1}
        world = World(
            tmp_path,
            environment={"FINETUNING_JUDGE_KEY": KEY, "FINETUNING_FEEDBACK": str(tmp_path / "feedback")},
        )
        gate = {"judge": {"min_gain": -1.0}, "empty": {"min_gain": -1.0}}
        recipe = changed(recipe, "evaluation", metrics=["judge"], judge=judge, gate=gate)
        recipe["base_model"]["repo"] = str(base_model)
        recipe = changed(recipe, "training", max_steps=8, learning_rate=0.05)
        world.write_recipe("tiny", recipe)

        whole, paid = server.decide, 2 * CHOICES + 4
        server.decide = lambda asked: Said(status=401, body=KEY.encode()) if server.requests > paid else whole(asked)
        first = world.materialize_warm("tiny")
        assert (
            first.returncode != 0
            and "does not accept the key (401: [key]; FINETUNING_JUDGE_KEY is set)" in first.stdout
        )
        said = re.search(
            r"judge fake at .*: human choices: 10 pairs, 20 questions, 0 of them asked before", first.stdout
        )
        assert said and "lora_adapter" in world.artifacts("tiny")

        server.decide, server.bodies = whole, []
        again = world.materialize_warm("tiny")
        assert again.returncode == 0, again.stdout[-4000:]
        report = report_of(world)
        found = report["judge"]
        asked = 2 * (found["pairs"] - found["same"])
        assert asked > 4, "the tiny model says the same after its training"
        assert server.requests == 2 * CHOICES + asked - paid and found["questions"] == 2 * CHOICES + asked
        assert found["carries_verdict"] and report["verdict"]["passed"] and found["agreement"] == 1.0

        before = world.artifacts("tiny")
        world.write_recipe("tiny", changed(recipe, "evaluation", judge=judge | {"agreement": 0.95}))
        strict = world.materialize_warm("tiny")
        after = world.artifacts("tiny")
        assert strict.returncode != 0 and "judge fake carries no verdict: it agrees with 1.000 of 10" in strict.stdout
        assert {name for name in before if after[name] != before[name]} == {"evaluation_report"}
        assert server.requests == 2 * CHOICES + asked - paid

        for number in range(CHOICES, 2 * CHOICES):
            choose(tmp_path / "feedback", number)
        world.write_recipe("tiny", recipe)
        more = world.materialize_warm("tiny")
        assert more.returncode == 0 and report_of(world)["judge"]["choices"] == 2 * CHOICES
        assert server.requests == 4 * CHOICES + asked - paid
        assert {header["Authorization"] for header in server.headers} == {f"Bearer {KEY}"}

    everything = [first.stdout, again.stdout, strict.stdout, more.stdout]
    assert not any(KEY in text for text in everything)
    held = [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert held == []
    address = server.url.encode()
    published = [path for path in (tmp_path / "hub").rglob("*") if path.is_file() and address in path.read_bytes()]
    assert published == []


def test_a_base_model_on_this_machine_judges_and_what_cannot_is_told_before_the_training(tmp_path, recipe, base_model):
    for number in range(CHOICES):
        choose(tmp_path / "feedback", number)
    world = World(tmp_path, environment={"FINETUNING_FEEDBACK": str(tmp_path / "feedback")})
    recipe["base_model"]["repo"] = str(base_model)
    recipe = changed(recipe, "training", max_steps=2)
    for name, told in (
        ("tiny", "evaluation.judge.name: tiny is the model that is examined, which would judge itself"),
        (
            "tinny/base",
            "without an endpoint it is a recipe, or RECIPE/base, and there is no recipe 'tinny'",
        ),
    ):
        world.write_recipe("tiny", changed(recipe, "evaluation", metrics=["judge"], gate={}, judge={"name": name}))
        refused = world.materialize_warm("tiny")
        assert refused.returncode != 0 and told in refused.stdout, refused.stdout[-3000:]
        assert "lora_adapter" not in world.artifacts("tiny")

    world.write_recipe(
        "tiny", changed(recipe, "evaluation", metrics=["judge"], gate={}, judge={"name": "tiny/base", "max_tokens": 4})
    )
    done = world.materialize_warm("tiny")
    assert "evaluation_report" in world.artifacts("tiny"), done.stdout[-3000:]
    found = report_of(world)["judge"]
    assert re.fullmatch(r"tiny/base \(quantized_base_model [0-9a-f]{16}, chat template [\w-]+\)", found["name"]), found[
        "name"
    ]
    assert found["choices"] == CHOICES and found["questions"] >= 2 * CHOICES
    # Random weights agree with nobody.
    assert done.returncode != 0 and "carries no verdict" in done.stdout
