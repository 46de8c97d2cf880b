"""The main line through its public command, on a tiny model: reuse, rebuilds, the lock on publishing, bad input."""

import copy
import json
import re
from pathlib import Path

import pytest

from resources.hub_server.local import local_hub
from tests.benchmark_folder import write_tasks
from tests.pipelines.command import IN_PROCESS, World
from tests.pipelines.token_search import places, texts
from tests.resources.serving import serving
from tests.tiny_models import ZEPHYR, save_tiny_model

ASSETS = {
    "raw_dataset",
    "chat_dataset",
    "quantized_base_model",
    "lora_adapter",
    "evaluation_report",
    "published_repo",
}
REUSED = rf"(?:{'|'.join(sorted(ASSETS))}) [0-9a-f]{{16}}: reused,"
PASSES = {"exact-match": {"min_gain": -1.0}}
FAILS = {"exact-match": {"min_gain": 1.0}}


@pytest.fixture(scope="module")
def base_model(tmp_path_factory):
    return save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("base") / "tiny-llama", ZEPHYR)


@pytest.fixture(scope="module")
def recipe(base_model):
    return {
        "summary": "A tiny model that learns nothing much",
        "base_model": {"repo": str(base_model)},
        "dataset": {
            "sources": [
                {
                    "generator": "linear-equations",
                    "format": "question-answer",
                    "columns": {"question": "Problem", "answer": "Solution"},
                    "rows": 16,
                }
            ],
            "eval": {"fraction": 0.25},
        },
        "lora": {"r": 4, "lora_alpha": 8},
        "training": {"max_steps": 2, "per_device_train_batch_size": 2},
        "evaluation": {"metrics": ["exact-match"], "rows": 2, "max_new_tokens": 4, "gate": PASSES},
        "hub": {"repo": "tiny-adapter", "license": "apache-2.0"},
    }


def changed(recipe: dict, section: str, **keys) -> dict:
    other = copy.deepcopy(recipe)
    other[section] |= keys
    return other


@pytest.fixture(scope="module")
def world(tmp_path_factory, recipe):
    """A world in which the tiny recipe has been through the main line once."""
    world = World(tmp_path_factory.mktemp("world"))
    world.write_recipe("tiny", recipe)
    first = world.materialize("tiny")
    assert first.returncode == 0, first.stdout[-4000:]
    (world.root / "first.log").write_text(first.stdout)
    return world


def commits(world: World, repo_id: str) -> list[str]:
    from huggingface_hub import HfApi

    with local_hub(world.root / "hub", grace=1.0) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        return [commit.title for commit in api.list_repo_commits(repo_id)]


def test_one_command_takes_a_recipe_through_all_six_assets(world):
    found = world.artifacts("tiny")
    assert set(found) == ASSETS
    adapter = found["lora_adapter"]
    assert adapter["inputs"] == {name: found[name]["fingerprint"] for name in ("chat_dataset", "quantized_base_model")}
    report = json.loads((world.folder("evaluation_report", "tiny") / "report.json").read_text())
    assert report["adapter"] == adapter["fingerprint"]
    assert report["verdict"]["passed"] is True


def test_the_memory_of_training_is_predicted_and_with_it_whether_activations_are_kept(world):
    summary, said = world.artifacts("tiny")["lora_adapter"]["summary"], (world.root / "first.log").read_text()
    assert f"memory: {summary['predicted_memory_mb']:,} MiB at its peak (" in said
    assert "training.activation_checkpointing: false, as it fits without" in said
    assert summary["activation_checkpointing"] is False
    assert summary["peak_memory_mb"] == pytest.approx(summary["predicted_memory_mb"], rel=0.15)


def test_an_adapter_that_is_there_is_shown_without_torch(world):
    command = ["dagster", "asset", "materialize", "-m", "pipelines.definitions", "--select", "lora_adapter"]
    shown = world.python("-X", "importtime", "-m", *command, "--partition", "tiny", "--config-json", IN_PROCESS)
    assert shown.returncode == 0 and ": reused," in shown.stdout, shown.stdout[-4000:]
    imported = set(re.findall(r"\|\s+([\w.]+)$", shown.stdout, re.MULTILINE))
    assert "matplotlib" in imported and not imported & {"torch", "transformers", "peft", "bitsandbytes"}


def test_a_second_run_reuses_everything_and_makes_no_commit(world):
    before, history = world.artifacts("tiny"), commits(world, "local/tiny-adapter")
    again = world.materialize("tiny")
    assert again.returncode == 0, again.stdout[-4000:]
    assert len(re.findall(REUSED, again.stdout)) == 6
    assert world.artifacts("tiny") == before
    assert commits(world, "local/tiny-adapter") == history and len(history) == 2


def test_the_result_table_names_report_and_commit(world):
    shown = world.python("-m", "pipelines.results", "tiny")
    published = world.artifacts("tiny")["published_repo"]["summary"]
    assert shown.returncode == 0
    assert "exact-match" in shown.stdout and "report.md" in shown.stdout
    assert f"local/tiny-adapter at commit {published['commit']}" in shown.stdout


EDITS = [
    ("hub", {"license": "mit"}, {"published_repo"}),
    ("evaluation", {"rows": 1}, {"evaluation_report", "published_repo"}),
    ("lora", {"r": 2}, {"lora_adapter", "evaluation_report", "published_repo"}),
    ("dataset", {"dedup": "exact"}, ASSETS - {"raw_dataset", "quantized_base_model"}),
    ("dataset", {"seed": 7}, ASSETS - {"quantized_base_model"}),
]


def test_editing_one_section_rebuilds_exactly_what_depends_on_it(world, recipe):
    for section, keys, rebuilt in EDITS:
        before, recipe = world.artifacts("tiny"), changed(recipe, section, **keys)
        world.write_recipe("tiny", recipe)
        run = world.materialize("tiny")
        assert run.returncode == 0, run.stdout[-4000:]
        after = world.artifacts("tiny")
        assert {name for name in ASSETS if after[name] != before[name]} == rebuilt, section
        assert len(re.findall(REUSED, run.stdout)) == len(ASSETS) - len(rebuilt), section


def answers_of_bases(world: World) -> list[str]:
    """Where answers of base models lie."""
    return sorted(str(path.parent) for path in (world.root / "artifacts" / "base_answers").glob("*/*/artifact.json"))


def test_the_base_answers_once_for_all_of_its_adapters(world, recipe):
    world.write_recipe("elder", changed(recipe, "hub", repo="elder-adapter"))
    assert world.materialize("elder", select=",".join(ASSETS - {"published_repo"})).returncode == 0
    there = answers_of_bases(world)
    world.write_recipe("younger", changed(changed(recipe, "lora", r=5), "hub", repo="younger-adapter"))
    run = world.materialize("younger", select=",".join(ASSETS - {"published_repo"}))
    assert run.returncode == 0, run.stdout[-4000:]
    assert re.search(r"base_answers [0-9a-f]{16}: reused,", run.stdout)
    assert answers_of_bases(world) == there
    elder, younger = (
        json.loads((world.folder("evaluation_report", name) / "report.json").read_text())
        for name in ("elder", "younger")
    )
    assert elder["adapter"] != younger["adapter"]
    assert elder["answering"]["base"] == younger["answering"]["base"]
    world.write_recipe("younger", changed(recipe, "evaluation", max_new_tokens=3))
    assert world.materialize("younger", select="lora_adapter,evaluation_report").returncode == 0
    assert len(answers_of_bases(world)) == len(there) + 1


def test_benchmarks_are_looked_up_first_and_asked_once_of_a_base(world, recipe):
    asked = {
        "benchmarks": ["animals", "sums"],
        "benchmark_folder": str(world.root / "tasks"),
        "max_benchmark_fall": 1.0,
    }
    recipe = changed(recipe, "evaluation", **asked)
    world.write_recipe("asked", recipe)
    wrong = world.materialize("asked", select="raw_dataset")
    assert wrong.returncode == 1 and "asked.yaml: evaluation.benchmark_folder:" in wrong.stdout
    assert not world.artifacts("asked")
    write_tasks(world.root / "tasks")
    first = world.materialize("asked", select=",".join(ASSETS - {"published_repo"}))
    assert first.returncode == 0, first.stdout[-4000:]
    assert re.search(r"base_benchmarks [0-9a-f]{16}: written,", first.stdout)
    report = json.loads((world.folder("evaluation_report", "asked") / "report.json").read_text())
    assert report["benchmarks"].keys() == {"animals", "sums"} and len(report["verdict"]["reasons"]) == 3
    page = (world.folder("evaluation_report", "asked") / "report.md").read_text()
    assert re.search(r"\| animals +\| acc +\| 12 ", page)
    world.write_recipe("asked", changed(recipe, "lora", r=5))
    again = world.materialize("asked", select="lora_adapter,evaluation_report")
    assert again.returncode == 0 and re.search(r"base_benchmarks [0-9a-f]{16}: reused,", again.stdout)
    (world.root / "tasks" / "sums.jsonl").write_text('{"question": "What is 1 + 1?", "answer": "2"}\n')
    edited = world.materialize("asked", select="evaluation_report")
    assert edited.returncode == 0 and re.search(r"base_benchmarks [0-9a-f]{16}: written,", edited.stdout)


def test_a_forged_report_publishes_nothing(world, recipe):
    world.write_recipe("forged", changed(changed(recipe, "evaluation", gate=FAILS), "hub", repo="forged-adapter"))
    assert world.materialize("forged").returncode == 1
    path = world.folder("evaluation_report", "forged") / "report.json"
    # As long as it was: a file of another length is taken for one that was cut short.
    forged = path.read_text().replace('"passed": false', '"passed": true ')
    path.write_text(forged)
    alone = world.materialize("forged", select="published_repo")
    assert alone.returncode == 1
    assert "changed after it was written: report.json" in alone.stdout
    other = changed(changed(recipe, "evaluation", gate=FAILS), "lora", r=3)
    world.write_recipe("forged", changed(other, "hub", repo="forged-adapter"))
    assert world.materialize("forged", select="lora_adapter").returncode == 0
    evaluated, now = json.loads(forged)["adapter"], world.artifacts("forged")["lora_adapter"]["fingerprint"]
    path.write_text(forged.replace(evaluated, now))
    alone = world.materialize("forged", select="published_repo")
    assert alone.returncode == 1
    assert "the evaluation_report in force" in alone.stdout and "was made from lora_adapter" in alone.stdout
    assert not (world.root / "hub" / "repos" / "models" / "local" / "forged-adapter.json").exists()


def test_a_recipe_that_asks_for_it_gets_one_model_of_base_and_adapter(world, recipe):
    world.write_recipe("merged", {**changed(recipe, "hub", repo="both"), "merge": {"dtype": "float32"}})
    run = world.materialize("merged")
    assert run.returncode == 0, run.stdout[-4000:]
    found = world.artifacts("merged")
    assert set(found) == ASSETS | {"merged_model", "published_merged_repo"}
    assert found["published_merged_repo"]["summary"]["repo_id"] == "local/both-merged"
    assert found["merged_model"]["summary"]["agreement"] == 1.0
    assert found["merged_model"]["sections"] == {"merge": {"dtype": "float32"}}, (
        "so that it is what it was without gguf"
    )
    again = world.materialize("merged")
    assert len(re.findall(r": reused,", again.stdout)) == 8 and len(commits(world, "local/both-merged")) == 2
    with local_hub(world.root / "hub", grace=1.0) as hub:
        code = (
            "from transformers import AutoModelForCausalLM as M; m = M.from_pretrained('local/both-merged'); "
            "print(m.num_parameters(), hasattr(m.config, 'quantization_config'))"
        )
        loaded = world.python("-c", code, HF_ENDPOINT=hub.endpoint, HF_TOKEN=hub.token)
    assert f"{found['merged_model']['summary']['parameters']} False" in loaded.stdout, loaded.stdout[-2000:]


def test_a_gguf_file_that_can_not_be_made_is_known_before_anything_is_trained(world, recipe, tmp_path):
    phi = save_tiny_model("phi-2", tmp_path / "tiny-phi", ZEPHYR)
    world.write_recipe("phi", recipe | {"base_model": {"repo": str(phi)}, "merge": {"gguf": "q8_0"}})
    run = world.materialize("phi", select="raw_dataset,chat_dataset,quantized_base_model,lora_adapter")
    assert run.returncode == 1
    assert re.search(r"phi\.yaml: merge\.gguf: models of type phi can not be exported; .* llama", run.stdout)
    assert "quantized_base_model" in world.artifacts("phi") and "lora_adapter" not in world.artifacts("phi")


def test_a_recipe_that_does_not_ask_for_it_says_that_merging_is_skipped(world, recipe):
    world.write_recipe("tiny", recipe)
    run = world.materialize("tiny")
    assert run.returncode == 0
    assert "skipped:" in run.stdout and "has no merge section" in run.stdout
    assert set(world.artifacts("tiny")) == ASSETS


def test_a_merged_model_is_not_published_without_the_verdict_or_when_it_says_something_else(world, recipe):
    failing = changed(changed(recipe, "evaluation", gate=FAILS), "hub", repo="never")
    world.write_recipe("unmerged", {**failing, "merge": {"dtype": "bfloat16"}})
    assert world.materialize("unmerged").returncode == 1
    assert "published_merged_repo" not in world.artifacts("unmerged")
    strict = {"dtype": "bfloat16", "max_kl": 1e-12}
    world.write_recipe("unlike", {**changed(recipe, "hub", repo="unlike"), "merge": strict})
    run = world.materialize("unlike")
    assert run.returncode == 1 and "nats a token apart, and merge.max_kl allows 1e-12" in run.stdout
    alone = world.materialize("unlike", select="published_merged_repo")
    assert alone.returncode == 1 and "merge: not published" in alone.stdout
    assert "published_merged_repo" not in world.artifacts("unlike")


def test_a_failed_gate_fails_the_run_and_publishes_nothing_however_it_is_selected(world, recipe):
    world.write_recipe("failing", changed(changed(recipe, "evaluation", gate=FAILS), "hub", repo="never-published"))
    run = world.materialize("failing")
    assert run.returncode == 1
    assert "gain in exact-match is 0.000, which misses by 1.000 the 1.000" in run.stdout
    assert set(world.artifacts("failing")) == ASSETS - {"published_repo"}
    alone = world.materialize("failing", select="published_repo")
    assert alone.returncode == 1
    assert "failing: not published: adapter" in alone.stdout and "failed its gate" in alone.stdout
    assert not (world.root / "hub" / "repos" / "models" / "local" / "never-published.json").exists()


def test_an_adapter_without_a_verdict_of_its_own_is_not_published(world, recipe):
    world.write_recipe("other", changed(recipe, "hub", repo="other-adapter"))
    assert world.materialize("other").returncode == 0
    history = commits(world, "local/other-adapter")
    world.write_recipe("other", changed(changed(recipe, "lora", r=3), "hub", repo="other-adapter"))
    assert world.materialize("other", select="lora_adapter").returncode == 0
    alone = world.materialize("other", select="published_repo")
    assert alone.returncode == 1
    assert "is about adapter" in alone.stdout and "Materialize evaluation_report for other" in alone.stdout
    assert commits(world, "local/other-adapter") == history


def test_a_gate_that_was_raised_after_the_exam_holds(world, recipe):
    world.write_recipe("raised", changed(recipe, "hub", repo="raised-adapter"))
    assert world.materialize("raised", select=",".join(ASSETS - {"published_repo"})).returncode == 0
    stricter = changed(changed(recipe, "evaluation", gate=FAILS), "hub", repo="raised-adapter")
    world.write_recipe("raised", stricter)
    alone = world.materialize("raised", select="published_repo")
    assert alone.returncode == 1
    assert "raised.yaml: evaluation: changed since report" in alone.stdout


def test_an_adapter_never_sits_its_exam_on_rows_that_it_may_have_learned(world, recipe):
    world.write_recipe("other", changed(changed(recipe, "dataset", seed=9), "hub", repo="other-adapter"))
    assert world.materialize("other", select="raw_dataset,chat_dataset").returncode == 0
    exam = world.materialize("other", select="evaluation_report")
    assert exam.returncode == 1
    assert "the lora_adapter in force" in exam.stdout and "was made from chat_dataset" in exam.stdout


def test_an_adapter_that_was_edited_after_its_exam_is_not_published(world, recipe):
    world.write_recipe("edited", changed(recipe, "hub", repo="edited-adapter"))
    assert world.materialize("edited", select=",".join(ASSETS - {"published_repo"})).returncode == 0
    config = world.folder("lora_adapter", "edited") / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
    weights = config.with_name("adapter_model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    alone = world.materialize("edited", select="published_repo")
    assert alone.returncode == 1
    assert "changed after it was written: adapter_config.json, adapter_model.safetensors" in alone.stdout
    world.write_recipe("edited", changed(changed(recipe, "evaluation", rows=1), "hub", repo="edited-adapter"))
    exam = world.materialize("edited", select="evaluation_report")
    assert exam.returncode == 1
    assert "changed after it was written: adapter_config.json, adapter_model.safetensors" in exam.stdout


def test_somebody_elses_commit_is_never_overwritten(world, recipe):
    from huggingface_hub import HfApi

    world.write_recipe("shared", changed(recipe, "hub", repo="shared-adapter"))
    assert world.materialize("shared").returncode == 0
    with local_hub(world.root / "hub", grace=1.0) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.upload_file(
            path_or_fileobj=b"mine",
            path_in_repo="notes.txt",
            repo_id="local/shared-adapter",
            commit_message="Add my notes",
        )
    world.write_recipe("shared", changed(changed(recipe, "lora", r=3), "hub", repo="shared-adapter"))
    run = world.materialize("shared")
    assert run.returncode == 1
    assert "'Add my notes'" in run.stdout and "was not made by this recipe" in run.stdout
    assert commits(world, "local/shared-adapter")[0] == "Add my notes"


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
    run = world.materialize("bad")
    assert run.returncode == 1
    assert re.search(message, run.stdout), run.stdout[-3000:]
    assert "lora_adapter" not in world.artifacts("bad")
    assert not list((world.root / "artifacts").glob("*/bad/.*.partial"))


def test_a_bad_recipe_takes_no_other_down(world, recipe):
    (world.root / "recipes" / "broken.yaml").write_text("summary: [")
    world.write_recipe("tiny", recipe)
    assert world.materialize("tiny").returncode == 0
    (world.root / "recipes" / "broken.yaml").unlink()


def test_a_column_that_is_not_there_is_named_beside_those_that_are(world, recipe):
    (world.root / "rows.jsonl").write_text('{"question": "2 + 3?", "answer": "5"}\n' * 8)
    source = {
        "files": [str(world.root / "rows.jsonl")],
        "format": "question-answer",
        "columns": {"question": "qestion"},
    }
    world.write_recipe("columns", changed(recipe, "dataset", sources=[source]))
    run = world.materialize("columns", select="raw_dataset")
    assert run.returncode == 1
    assert "qestion" in run.stdout and "it has question, answer" in run.stdout.replace("'", "")


def test_a_partition_that_does_not_exist_is_named(world):
    run = world.materialize("no-such-model", select="raw_dataset")
    assert run.returncode != 0
    assert "no-such-model" in run.stdout


def test_a_gpu_that_is_required_and_absent_is_said_before_anything_is_written(world, recipe):
    world.write_recipe("gpu", recipe)
    run = world.materialize("gpu", select="quantized_base_model", FINETUNING_REQUIRE="cuda", CUDA_VISIBLE_DEVICES="")
    assert run.returncode == 1
    assert "gpu.require: cuda, but torch" in run.stdout
    assert "gpu" not in {path.parent.name for path in (world.root / "artifacts").glob("*/*/current.json")}


TOKEN, WRONG = "hf_Known+by/the.Hub", "hf_Wrong+and/Unknown"


def test_no_token_is_left_anywhere_by_publications_that_fail_and_one_that_does_not(world, recipe):
    world.write_recipe("tiny", recipe)
    assert world.materialize("tiny").returncode == 0
    said = []
    elsewhere = {name: str(world.root / name) for name in ("TMPDIR", "MPLCONFIGDIR")}
    for folder in elsewhere.values():
        Path(folder).mkdir()

    def publish(**environment: str) -> tuple[int, str]:
        run = world.materialize(
            "tiny", select="published_repo", FINETUNING_HUB=hub.endpoint, **elsewhere, **environment
        )
        said.append(run.stdout)
        return run.returncode, run.stdout

    with serving(world.root / "other-hub", "--port", "0", "--faults", "--token", f"{TOKEN}=ann") as hub:
        code, output = publish()
        assert code == 1 and "needs a token, and HF_TOKEN is not set" in output
        code, output = publish(HF_TOKEN=WRONG)
        assert code == 1 and "does not accept the token in HF_TOKEN" in output, output[-3000:]
        hub.faults({"path": "/commit/", "status": 500, "times": 1000})
        code, output = publish(HF_TOKEN=TOKEN, FINETUNING_HUB_DEADLINE="3")
        assert code == 1 and "answered 500 for ann/" in output and "(FINETUNING_HUB_DEADLINE)" in output
        hub.faults({"path": "ann/tiny-adapter/commit/", "kind": "reset", "acted": True, "times": 1})
        code, output = publish(HF_TOKEN=TOKEN)
        assert code == 0, output[-3000:]
        assert re.search(r"hub: POST /api/models/ann/tiny-adapter/commit/main: \w+Error; trying again in", output)
        assert [commit["title"] for commit in hub.repo("ann/tiny-adapter")["commits"].values()][1:] == [
            f"Publish tiny ({world.artifacts('tiny')['published_repo']['fingerprint']})"
        ]
    (world.root / "said.log").write_text("".join(said))
    assert len([path for path, _ in texts(world.root)]) > 100
    assert places(TOKEN, world.root) == [] == places(WRONG, world.root)
