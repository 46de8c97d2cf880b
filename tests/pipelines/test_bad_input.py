"""What a user may get wrong, through the public command: one clear message, and nothing lost or left behind."""

import re
from pathlib import Path

import pytest

from tests.pipelines.main_line import changed
from tests.pipelines.token_search import places, texts
from tests.resources.serving import serving
from tests.warm_server import HUBS

BAD = {
    "an unknown key": ({"training": {"learning_rte": 1.0e-4}}, r"training\.learning_rte: unknown key.*learning_rate"),
    "a wrong value": ({"lora": {"r": -1}}, r"lora\.r: -1"),
    "a missing folder": (
        {"base_model": {"repo": "./nowhere"}},
        r"base_model\.repo: the folder \./nowhere does not exist",
    ),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_a_bad_recipe_is_one_clear_message_and_no_file(world, recipe, case):
    section, message = BAD[case]
    world.write_recipe("bad", recipe | section)
    run = world.materialize_warm("bad")
    assert run.returncode == 1
    assert re.search(message, run.stdout), run.stdout[-3000:]
    assert "lora_adapter" not in world.artifacts("bad")
    assert not list((world.root / "artifacts").glob("*/bad/.*.partial"))


def test_a_bad_recipe_takes_no_other_down(world, recipe):
    (world.root / "recipes" / "broken.yaml").write_text("summary: [")
    world.write_recipe("tiny", recipe)
    assert world.materialize_warm("tiny").returncode == 0
    (world.root / "recipes" / "broken.yaml").unlink()


def test_a_column_that_is_not_there_is_named_beside_those_that_are(world, recipe):
    (world.root / "rows.jsonl").write_text('{"question": "2 + 3?", "answer": "5"}\n' * 8)
    source = {
        "files": [str(world.root / "rows.jsonl")],
        "format": "question-answer",
        "columns": {"question": "qestion"},
    }
    world.write_recipe("columns", changed(recipe, "dataset", sources=[source]))
    run = world.materialize_warm("columns", select="raw_dataset")
    assert run.returncode == 1
    assert "qestion" in run.stdout and "it has question, answer" in run.stdout.replace("'", "")


def test_a_partition_that_does_not_exist_is_named(world):
    run = world.materialize_warm("no-such-model", select="raw_dataset")
    assert run.returncode != 0
    assert "no-such-model" in run.stdout


def test_a_gpu_that_is_required_and_absent_is_said_before_anything_is_written(world, recipe):
    world.write_recipe("gpu", recipe)
    run = world.materialize_warm(
        "gpu", select="quantized_base_model", FINETUNING_REQUIRE="cuda", CUDA_VISIBLE_DEVICES=""
    )
    assert run.returncode == 1
    assert "gpu.require: cuda, but torch" in run.stdout
    assert "gpu" not in {path.parent.name for path in (world.root / "artifacts").glob("*/*/current.json")}


TOKEN, WRONG = "hf_Known+by/the.Hub", "hf_Wrong+and/Unknown"


@pytest.mark.long("publications that fail, and a search through all that they leave")
def test_no_token_is_left_anywhere_by_publications_that_fail_and_one_that_does_not(world, recipe):
    world.write_recipe("tiny", recipe)
    assert world.materialize_warm("tiny").returncode == 0
    said = []
    elsewhere = {name: str(world.root / name) for name in ("TMPDIR", "MPLCONFIGDIR")}
    for folder in elsewhere.values():
        Path(folder).mkdir()

    def publish(publishing=world.materialize_warm, **environment: str) -> tuple[int, str]:
        there = {
            "FINETUNING_SOURCE_HUB": hub.endpoint,
            "FINETUNING_HUB": hub.endpoint,
            "TMPDIR": elsewhere["TMPDIR"],
            **environment,
        }
        run = publishing("tiny", select="published_repo", **there)
        said.append(run.stdout)
        return run.returncode, run.stdout

    other = world.root / "other-hub"
    HUBS.leave_to(other)
    with serving(other, "--port", str(HUBS.port), "--faults", "--token", f"{TOKEN}=ann") as hub:
        code, output = publish()
        assert code == 1 and "needs a token, and HF_TOKEN is not set" in output
        code, output = publish(HF_TOKEN=WRONG)
        assert code == 1 and "does not accept the token in HF_TOKEN" in output, output[-3000:]
        hub.faults({"path": "/commit/", "status": 500, "times": 1000})
        code, output = publish(HF_TOKEN=TOKEN, FINETUNING_HUB_DEADLINE="3")
        assert code == 1 and "answered 500 for ann/" in output and "(FINETUNING_HUB_DEADLINE)" in output
        hub.faults({"path": "ann/tiny-adapter/commit/", "kind": "reset", "acted": True, "times": 1})
        code, output = publish(world.materialize, HF_TOKEN=TOKEN, **elsewhere)
        assert code == 0, output[-3000:]
        assert re.search(r"hub: POST /api/models/ann/tiny-adapter/commit/main: \w+Error; trying again in", output)
        assert [commit["title"] for commit in hub.repo("ann/tiny-adapter")["commits"].values()][1:] == [
            f"Publish tiny ({world.artifacts('tiny')['published_repo']['fingerprint']})"
        ]
    (world.root / "said.log").write_text("".join(said))
    assert len([path for path, _ in texts(world.root)]) > 100
    assert places(TOKEN, world.root) == [] == places(WRONG, world.root)
