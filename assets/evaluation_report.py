"""The asset `evaluation_report`: base and tuned model beside each other, and the verdict on this very adapter."""

import base64
import json

import dagster as dg

from assets.mistakes import explained
from assets.partitions import BASE_MODELS, OWNERS
from finetuning.progress import Progress
from finetuning.recipe import load
from finetuning.verdict import judge
from resources.artifacts import Artifact, Artifacts
from resources.gpu import Gpu


@dg.asset(
    partitions_def=BASE_MODELS,
    group_name="proof",
    kinds={"report", "python"},
    owners=OWNERS,
    code_version="2",
    check_specs=[
        dg.AssetCheckSpec(
            "verdict",
            asset="evaluation_report",
            description="The tuned model meets what its recipe's gate asks for. Nothing is published without it.",
            blocking=True,
            partitions_def=BASE_MODELS,
        )
    ],
)
@explained()
def evaluation_report(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    gpu: Gpu,
    chat_dataset: Artifact,
    quantized_base_model: Artifact,
    lora_adapter: Artifact,
):
    """An exam: the model before and after training answers the same questions, none of which it has seen.

    The page shows both scores, how sure the difference is, and answers side by side. Its verdict says whether the
    tuned model may be published.
    """
    recipe = load(context.partition_key)
    # An adapter from other rows may have learned these, and one from another base is another model.
    lora_adapter.require_inputs(chat_dataset, quantized_base_model)

    def write(folder):
        folders = (chat_dataset.path, quantized_base_model.path, lora_adapter.path)
        with Progress(context.log.info, "loading libraries") as progress:
            from finetuning.evaluation import evaluate
            from finetuning.report import write_report

            with gpu.exclusive(context.log.info):
                found = evaluate(recipe.evaluation, *folders, gpu.model_kwargs(recipe.base_model), progress)
        verdict = judge(recipe.evaluation, found["metrics"])
        adapter = {"fingerprint": lora_adapter.fingerprint, "summary": lora_adapter.summary}
        return write_report(folder, recipe.name, recipe.summary, adapter, found, verdict)

    artifact = artifacts.plan(
        context,
        sections={"evaluation": recipe.evaluation.model_dump(mode="json"), "summary": recipe.summary},
        resolved={},
        inputs=[chat_dataset, quantized_base_model, lora_adapter],
    ).obtain(write)
    report = json.loads((artifact.path / "report.json").read_text())
    verdict = report["verdict"]
    for reason in verdict["reasons"]:
        (context.log.info if verdict["passed"] else context.log.error)(f"verdict: {reason}")
    return dg.MaterializeResult(
        value=artifact,
        data_version=dg.DataVersion(artifact.fingerprint),
        metadata=metadata_of(artifact, report),
        check_results=[
            dg.AssetCheckResult(
                check_name="verdict", passed=verdict["passed"], description="; ".join(verdict["reasons"])
            )
        ],
    )


def metadata_of(artifact: Artifact, report: dict) -> dict:
    """What the UI shows: the numbers, and the page with its plot inside."""
    numbers = {
        f"{key}/{name}": found[key] for name, found in report["metrics"].items() for key in ("base", "tuned", "gain")
    }
    intervals = {
        f"gain/{name}/interval": "{:+.3f} to {:+.3f}".format(*found["interval"])
        for name, found in report["metrics"].items()
    }
    picture = base64.b64encode((artifact.path / "metrics.png").read_bytes()).decode()
    page = (artifact.path / "report.md").read_text().replace("(metrics.png)", f"(data:image/png;base64,{picture})")
    return {
        **artifact.metadata(),
        **numbers,
        **intervals,
        "verdict": "passed" if report["verdict"]["passed"] else "failed",
        "report": dg.MetadataValue.md(page),
    }
