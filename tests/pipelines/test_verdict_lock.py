"""The lock on publishing through the public command, on a tiny model: forged, edited, failed, somebody else's."""

import hashlib
import json
import re
from pathlib import Path

from resources.hub_server.local import local_hub
from tests.pipelines.main_line import ASSETS, FAILS, changed, commits
from tests.tiny_models import ZEPHYR, save_tiny_model


def test_a_forged_report_publishes_nothing(world, recipe):
    world.share("forged")
    world.write_recipe("forged", changed(changed(recipe, "evaluation", gate=FAILS), "hub", repo="forged-adapter"))
    assert world.materialize_warm("forged").returncode == 1
    path = world.folder("evaluation_report", "forged") / "report.json"
    # As long as it was: a file of another length is taken for one that was cut short.
    forged = path.read_text().replace('"passed": false', '"passed": true ')
    path.write_text(forged)
    alone = world.materialize_warm("forged", select="published_repo")
    assert alone.returncode == 1
    assert "changed after it was written: report.json" in alone.stdout
    other = changed(changed(recipe, "evaluation", gate=FAILS), "lora", r=3)
    world.write_recipe("forged", changed(other, "hub", repo="forged-adapter"))
    assert world.materialize_warm("forged", select="lora_adapter").returncode == 0
    now = world.artifacts("forged")["lora_adapter"]
    evaluated, weights = json.loads(forged), "adapter_model.safetensors"
    forged = forged.replace(evaluated["files"][weights], now["files"][weights])
    path.write_text(forged.replace(evaluated["adapter"], now["fingerprint"]))
    alone = world.materialize_warm("forged", select="published_repo")
    assert alone.returncode == 1
    assert "the evaluation_report in force" in alone.stdout and "was made from lora_adapter" in alone.stdout
    assert not (world.root / "hub" / "repos" / "models" / "local" / "forged-adapter.json").exists()


def test_a_recipe_that_asks_for_it_gets_one_model_of_base_and_adapter(world, recipe):
    world.share("merged")
    world.write_recipe("merged", {**changed(recipe, "hub", repo="both"), "merge": {"dtype": "float32"}})
    run = world.materialize_warm("merged")
    assert run.returncode == 0, run.stdout[-4000:]
    found = world.artifacts("merged")
    assert set(found) == ASSETS | {"merged_model", "published_merged_repo"}
    assert found["published_merged_repo"]["summary"]["repo_id"] == "local/both-merged"
    assert found["merged_model"]["summary"]["agreement"] == 1.0
    assert found["merged_model"]["sections"] == {"merge": {"dtype": "float32"}}, (
        "so that it is what it was without gguf"
    )
    again = world.materialize_warm("merged")
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
    run = world.materialize_warm("phi", select="raw_dataset,chat_dataset,quantized_base_model,lora_adapter")
    assert run.returncode == 1
    assert re.search(r"phi\.yaml: merge\.gguf: models of type phi cannot be exported; .* llama", run.stdout)
    assert "quantized_base_model" in world.artifacts("phi") and "lora_adapter" not in world.artifacts("phi")


def test_a_recipe_that_does_not_ask_for_it_says_that_merging_is_skipped(world, recipe):
    world.write_recipe("tiny", recipe)
    run = world.materialize_warm("tiny")
    assert run.returncode == 0
    assert "skipped: merged_model, published_merged_repo" in run.stdout and "no section merge" in run.stdout
    assert "emitted no result" not in run.stdout, "a check of what was left out is not missed"
    assert set(world.artifacts("tiny")) == ASSETS


def test_a_merged_model_is_not_published_without_the_verdict_or_when_it_says_something_else(world, recipe):
    world.share("unmerged")
    failing = changed(changed(recipe, "evaluation", gate=FAILS), "hub", repo="never")
    world.write_recipe("unmerged", {**failing, "merge": {"dtype": "bfloat16"}})
    assert world.materialize_warm("unmerged").returncode == 1
    assert "published_merged_repo" not in world.artifacts("unmerged")
    world.share("unlike")
    strict = {"dtype": "bfloat16", "max_kl": 1e-12}
    world.write_recipe("unlike", {**changed(recipe, "hub", repo="unlike"), "merge": strict})
    run = world.materialize_warm("unlike")
    assert run.returncode == 1 and "nats a token apart, and merge.max_kl allows 1e-12" in run.stdout
    alone = world.materialize_warm("unlike", select="published_merged_repo")
    assert alone.returncode == 1 and "merge: not published" in alone.stdout
    assert "published_merged_repo" not in world.artifacts("unlike")


def test_a_failed_gate_fails_the_run_and_publishes_nothing_however_it_is_selected(world, recipe):
    world.share("failing")
    world.write_recipe("failing", changed(changed(recipe, "evaluation", gate=FAILS), "hub", repo="never-published"))
    run = world.materialize_warm("failing")
    assert run.returncode == 1
    assert "gain in exact-match is 0.000, which misses by 1.000 the 1.000" in run.stdout
    assert set(world.artifacts("failing")) == ASSETS - {"published_repo"}
    told = world.results("failing", "--after", "1")
    assert told.returncode == 3 and "failing failed its gate: nothing was published:\nverdict: gain in" in told.stdout
    assert re.search(r"^verdict +failed$", told.stdout, re.MULTILINE) and "published  " not in told.stdout
    alone = world.materialize_warm("failing", select="published_repo")
    assert alone.returncode == 1
    assert "failing: not published: adapter" in alone.stdout and "failed its gate" in alone.stdout
    assert not (world.root / "hub" / "repos" / "models" / "local" / "never-published.json").exists()


def test_an_adapter_without_a_verdict_of_its_own_is_not_published(world, recipe):
    world.share("other")
    world.write_recipe("other", changed(recipe, "hub", repo="other-adapter"))
    assert world.materialize_warm("other").returncode == 0
    history = commits(world, "local/other-adapter")
    world.write_recipe("other", changed(changed(recipe, "lora", r=3), "hub", repo="other-adapter"))
    assert world.materialize_warm("other", select="lora_adapter").returncode == 0
    alone = world.materialize_warm("other", select="published_repo")
    assert alone.returncode == 1
    assert "is about adapter" in alone.stdout and "Materialize evaluation_report for other" in alone.stdout
    assert commits(world, "local/other-adapter") == history


def test_a_gate_that_was_raised_after_the_exam_holds(world, recipe):
    world.share("raised")
    world.write_recipe("raised", changed(recipe, "hub", repo="raised-adapter"))
    assert world.materialize_warm("raised", select=",".join(ASSETS - {"published_repo"})).returncode == 0
    stricter = changed(changed(recipe, "evaluation", gate=FAILS), "hub", repo="raised-adapter")
    world.write_recipe("raised", stricter)
    alone = world.materialize_warm("raised", select="published_repo")
    assert alone.returncode == 1
    assert "raised.yaml: evaluation: changed since report" in alone.stdout


def test_an_adapter_never_sits_its_exam_on_rows_that_it_may_have_learned(world, recipe):
    world.write_recipe("other", changed(changed(recipe, "dataset", seed=9), "hub", repo="other-adapter"))
    assert world.materialize_warm("other", select="raw_dataset,chat_dataset").returncode == 0
    exam = world.materialize_warm("other", select="evaluation_report")
    assert exam.returncode == 1
    assert "the lora_adapter in force" in exam.stdout and "was made from chat_dataset" in exam.stdout


def test_an_adapter_that_was_edited_after_its_exam_is_not_published(world, recipe):
    world.share("edited")
    world.write_recipe("edited", changed(recipe, "hub", repo="edited-adapter"))
    assert world.materialize_warm("edited", select=",".join(ASSETS - {"published_repo"})).returncode == 0
    config = world.folder("lora_adapter", "edited") / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
    weights = config.with_name("adapter_model.safetensors")
    nudge(weights)
    alone = world.materialize_warm("edited", select="published_repo")
    assert alone.returncode == 1
    assert "changed after it was written: adapter_config.json, adapter_model.safetensors" in alone.stdout
    world.write_recipe("edited", changed(changed(recipe, "evaluation", rows=5), "hub", repo="edited-adapter"))
    exam = world.materialize_warm("edited", select="evaluation_report")
    assert exam.returncode == 1
    assert "changed after it was written: adapter_config.json, adapter_model.safetensors" in exam.stdout


def nudge(weights: Path) -> None:
    """Change the lowest bit of the last number, which is in float32."""
    content = bytearray(weights.read_bytes())
    content[-4] ^= 1
    weights.write_bytes(content)


def test_weights_that_were_trained_once_more_since_the_exam_are_examined_before_they_are_published(world, recipe):
    world.share("again")
    world.write_recipe("again", changed(recipe, "hub", repo="again-adapter"))
    assert world.materialize_warm("again", select=",".join(ASSETS - {"published_repo"})).returncode == 0
    # As another machine's training leaves it: the same fingerprint, and weights that differ.
    folder = world.folder("lora_adapter", "again")
    weights, manifest = folder / "adapter_model.safetensors", folder / "artifact.json"
    nudge(weights)
    made = json.loads(manifest.read_text())
    made["files"][weights.name] = hashlib.sha256(weights.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(made))
    alone = world.materialize_warm("again", select="published_repo")
    assert alone.returncode == 1 and "is about other weights of adapter" in alone.stdout, alone.stdout[-3000:]
    exam = world.materialize_warm("again", select="evaluation_report,published_repo")
    assert exam.returncode == 0, exam.stdout[-3000:]
    assert "evaluation_report" not in re.findall(r"(\w+) [0-9a-f]{16}: reused,", exam.stdout)
    report = json.loads((world.folder("evaluation_report", "again") / "report.json").read_text())
    assert report["files"] == {weights.name: made["files"][weights.name]}


def test_eval_rows_that_were_changed_are_not_taken_for_an_exam_and_nothing_is_published_with_them(world, recipe):
    world.share("rows")
    world.write_recipe("rows", changed(recipe, "hub", repo="rows-adapter"))
    assert world.materialize_warm("rows", select=",".join(ASSETS - {"published_repo"})).returncode == 0
    path = world.folder("chat_dataset", "rows") / "eval.parquet"
    rows = path.read_bytes()
    path.write_bytes(rows[:100] + bytes([rows[100] ^ 1]) + rows[101:])
    told = "changed after it was written: eval.parquet"
    alone = world.materialize_warm("rows", select="published_repo")
    assert alone.returncode == 1 and told in alone.stdout
    world.write_recipe("rows", changed(changed(recipe, "evaluation", rows=5), "hub", repo="rows-adapter"))
    exam = world.materialize_warm("rows", select="evaluation_report")
    assert exam.returncode == 1 and told in exam.stdout


def test_nothing_that_was_changed_since_it_was_written_is_read_for_another_artifact(world, recipe):
    world.share("read")
    world.write_recipe("read", changed(recipe, "hub", repo="read-adapter"))
    assert world.materialize_warm("read", select=",".join(ASSETS - {"published_repo"})).returncode == 0
    made = world.artifacts("read")
    assert set(made["lora_adapter"]["contents"]) == {"chat_dataset", "quantized_base_model"}
    assert set(made["chat_dataset"]["contents"]) == {"raw_dataset"}
    base = made["quantized_base_model"]["fingerprint"]
    cases = [
        (next(world.root.glob(f"artifacts/base_answers/{base}/*/*.parquet")), {"evaluation": {"samples": 2}}),
        (next(world.folder("raw_dataset", "read").glob("train*")), {"chat": {"max_length": 1023}}),
        (world.folder("evaluation_report", "read") / "report.json", {}),
    ]
    for path, edit in cases:
        whole = path.read_bytes()
        at = whole.index(b'"passed": true') if path.suffix == ".json" else len(whole) // 2
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        edited = changed(recipe, "hub", repo="read-adapter")
        for section, keys in edit.items():
            edited |= {section: {**edited.get(section, {}), **keys}}
        world.write_recipe("read", edited)
        asset = "chat_dataset" if "chat" in edit else "evaluation_report"
        run = world.materialize_warm("read", select=asset)
        assert run.returncode == 1 and f"changed after it was written: {path.name}" in run.stdout, run.stdout[-3000:]
        path.write_bytes(whole)


def test_a_recipe_that_was_edited_since_the_training_describes_nothing_that_is_published(world, recipe):
    world.share("edit")
    mine = changed(recipe, "hub", repo="edit-adapter")
    world.write_recipe("edit", mine)
    assert world.materialize_warm("edit", select=",".join(ASSETS - {"published_repo"})).returncode == 0
    world.write_recipe("edit", changed(mine, "lora", r=64) | {"chat": {"max_length": 77}})
    alone = world.materialize_warm("edit", select="published_repo")
    assert alone.returncode == 1
    assert re.search(r"edited since what is to be published was made: .*chat\.max_length: \d+, now 77", alone.stdout)
    assert "lora.r: 4, now 64 (of lora_adapter" in alone.stdout
    world.write_recipe("edit", mine)
    assert world.materialize_warm("edit", select="published_repo").returncode == 0


def test_somebody_elses_commit_is_never_overwritten(world, recipe):
    from huggingface_hub import HfApi

    world.share("shared")
    world.write_recipe("shared", changed(recipe, "hub", repo="shared-adapter"))
    assert world.materialize_warm("shared").returncode == 0
    with local_hub(world.root / "hub", grace=1.0) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.upload_file(
            path_or_fileobj=b"mine",
            path_in_repo="notes.txt",
            repo_id="local/shared-adapter",
            commit_message="Add my notes",
        )
    world.write_recipe("shared", changed(changed(recipe, "lora", r=3), "hub", repo="shared-adapter"))
    run = world.materialize_warm("shared")
    assert run.returncode == 1
    assert "'Add my notes'" in run.stdout and "was not made by this recipe" in run.stdout
    assert commits(world, "local/shared-adapter")[0] == "Add my notes"
