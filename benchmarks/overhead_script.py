"""A recipe from rows to a published adapter in one process: `python -m benchmarks.overhead_script NAME`.

It is what somebody writes who needs the result once: the same functions as the assets call, one after the other.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi

from benchmarks.evaluation import SILENT, prepare
from finetuning.evaluation.comparison import evaluate
from finetuning.evaluation.exam import Candidate, exam_of, sit
from finetuning.evaluation.report import Report
from finetuning.evaluation.verdict import judge
from finetuning.recipe.loading import load
from finetuning.recipe.recipe import Recipe
from resources.gpu import Gpu
from resources.hub_server.local import local_hub


def main(name: str) -> None:
    """Publish base model, adapter and report to the local hub."""
    recipe = load(name)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root, recipe, recipe.training.max_steps)
        evaluated(recipe, root)
        with local_hub(Path(os.environ["FINETUNING_HUB_STATE"]).with_name("script-hub")) as hub:
            api = HfApi(endpoint=hub.endpoint, token=hub.token)
            for part in ("base", "adapter"):
                repo = api.create_repo(f"{hub.user}/{name}-{part}").repo_id
                # peft's card names the base model by its folder, which no hub takes.
                api.upload_folder(repo_id=repo, folder_path=root / part, ignore_patterns="README.md")


def evaluated(recipe: Recipe, root: Path) -> None:
    """Let base and tuned model sit the exam, and leave the report with the adapter."""
    spec, kwargs, found = recipe.evaluation, Gpu().model_kwargs(recipe.base_model), {}
    exam = exam_of(spec, root / "chat")
    for side, adapter in (("base", None), ("tuned", root / "adapter")):
        (root / f"answers-{side}").mkdir()
        candidate = Candidate(side, root / "base", adapter, kwargs)
        found[side] = sit(spec, exam, candidate, SILENT, root / f"answers-{side}")
    compared = evaluate(spec, exam, root / "answers-base", root / "answers-tuned")
    verdict = judge(spec, compared.rows, compared.metrics)
    weights = hashlib.sha256((root / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()
    report = Report(
        adapter=weights[:16], verdict=verdict, rows=compared.rows, metrics=dict(compared.metrics), answering=found
    )
    (root / "adapter" / "report.json").write_text(json.dumps(report.as_json()))


if __name__ == "__main__":
    main(sys.argv[1])
