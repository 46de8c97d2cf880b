"""The asset `evaluation_report`: base and tuned model beside each other, and the verdict on this very adapter."""

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.mistakes import explained
from assets.partitions import BASE_MODELS, OWNERS
from finetuning.benchmark_tasks import Benchmark, load_benchmarks, tasks_revision
from finetuning.progress import Progress
from finetuning.python_tests import require_confinement
from finetuning.recipe import Recipe, load
from finetuning.verdict import judge
from resources.artifacts import Artifact, Artifacts, Plan
from resources.gpu import Gpu

if TYPE_CHECKING:
    from finetuning.evaluation import Exam

# The settings that the base model's answers depend on, and those that its figures in benchmarks do.
HOW_IT_ANSWERS = {"max_new_tokens", "batch_size"}
HOW_IT_IS_BENCHMARKED = {"benchmarks", "benchmark_rows", "batch_size"}


@dg.asset(
    partitions_def=BASE_MODELS,
    group_name="proof",
    kinds={"report", "python"},
    owners=OWNERS,
    code_version="3",
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
    raw_dataset: Artifact,
    chat_dataset: Artifact,
    quantized_base_model: Artifact,
    lora_adapter: Artifact,
):
    """An exam: the model before and after training answers the same questions, none of which it has seen.

    The page shows both scores, how sure the difference is, and answers side by side. Its verdict says whether the
    tuned model may be published.
    """
    recipe = load(context.partition_key)
    chat_dataset.require_inputs(raw_dataset)
    # An adapter from other rows may have learned these, and one from another base is another model.
    lora_adapter.require_inputs(chat_dataset, quantized_base_model)
    chain = (raw_dataset, chat_dataset, quantized_base_model, lora_adapter)

    def write(folder):
        found = examine(context, artifacts, gpu, recipe, chain, folder)
        return report_on(recipe, chain, found, folder)

    artifact = artifacts.plan(
        context,
        sections={"evaluation": recipe.evaluation.model_dump(mode="json"), "summary": recipe.summary},
        resolved=tasks_revision(recipe.evaluation),
        inputs=chain[1:],
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


def examine(
    context: dg.AssetExecutionContext, artifacts: Artifacts, gpu: Gpu, recipe: Recipe, chain: tuple, folder: Path
) -> dict[str, Any]:
    """What base and tuned model came to; the base's answers are those that another recipe of this base left, if any."""
    _, chat_dataset, base_model, adapter = chain
    kwargs, spec = gpu.model_kwargs(recipe.base_model), recipe.evaluation
    adapter.verify()
    if "python-tests" in spec.metrics:
        require_confinement(recipe.file)
    with Progress(context.log.info, "loading libraries") as progress:
        from finetuning.evaluation import evaluate, exam_of, sit

        exam = exam_of(spec, chat_dataset.path, recipe.base_model.trust_remote_code)
        benchmarks = load_benchmarks(spec, recipe.file)

        def answer(by: Path | None, out: Path) -> dict[str, Any]:
            with gpu.exclusive(context.log.info):
                return sit(spec, exam, base_model.path, by, kwargs, progress, out)

        plan = plan_of_base(context, artifacts, recipe, exam, chat_dataset, base_model, kwargs)
        base = plan.obtain(lambda out: answer(None, out))
        tuned = answer(adapter.path, folder)
        found = evaluate(spec, exam, base.path, folder)
        if benchmarks:
            found["benchmarks"] = benchmark(context, artifacts, gpu, recipe, chain, exam, benchmarks, progress, folder)
    return found | {"answering": {"base": base.summary | {"fingerprint": base.fingerprint}, "tuned": tuned}}


def benchmark(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    gpu: Gpu,
    recipe: Recipe,
    chain: tuple,
    exam: "Exam",
    benchmarks: dict[str, Benchmark],
    progress: Progress,
    folder: Path,
) -> dict[str, Any]:
    """What base and tuned model came to in benchmarks; the base's scores too are those that another recipe left."""
    from finetuning.benchmark_scores import compare_benchmarks, sit_benchmarks

    _, chat_dataset, base_model, adapter = chain
    kwargs, spec = gpu.model_kwargs(recipe.base_model), recipe.evaluation

    def answer(by: Path | None, out: Path) -> dict[str, Any]:
        with gpu.exclusive(context.log.info):
            return sit_benchmarks(spec, benchmarks, exam, base_model.path, by, kwargs, progress, out)

    base = artifacts.plan(
        context,
        sections={"evaluation": spec.model_dump(mode="json", include=HOW_IT_IS_BENCHMARKED)},
        resolved={
            **tasks_revision(spec),
            "chat_template": chat_dataset.resolved["chat_template"],
            "model_kwargs": kwargs,
        },
        inputs=[base_model],
        beside=("base_benchmarks", base_model.fingerprint),
    ).obtain(lambda out: answer(None, out))
    answer(adapter.path, folder)
    progress.update("benchmarks: comparing")
    return compare_benchmarks(base.path, folder)


def plan_of_base(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    recipe: Recipe,
    exam: "Exam",
    chat_dataset: Artifact,
    base_model: Artifact,
    model_kwargs: dict[str, Any],
) -> Plan:
    """The artifact of the base model's answers: the same for all adapters of a base that are asked the same."""
    from finetuning.evaluation import measures_loss, runs_code

    return artifacts.plan(
        context,
        sections={"evaluation": recipe.evaluation.model_dump(mode="json", include=HOW_IT_ANSWERS)},
        resolved={
            "chat_template": chat_dataset.resolved["chat_template"],
            "rows": exam.digest(),
            "loss": measures_loss(recipe.evaluation),
            "code": runs_code(recipe.evaluation),
            # Answers of one kernel, or of one machine, are not compared with those of another.
            "model_kwargs": model_kwargs,
        },
        inputs=[base_model],
        beside=("base_answers", base_model.fingerprint),
    )


def report_on(recipe: Recipe, chain: tuple, found: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The report that `folder` then holds."""
    from finetuning.report import Made, write_report

    raw_dataset, chat_dataset, base_model, adapter = chain
    made = Made(
        adapter=adapter.fingerprint,
        training=adapter.summary,
        settings=adapter.sections,
        versions=adapter.versions,
        base_model=base_model.resolved["base_model"],
        sources=raw_dataset.summary["sources"],
        chat=chat_dataset.summary,
    )
    verdict = judge(recipe.evaluation, found["metrics"], found.get("benchmarks"))
    return write_report(folder, recipe.name, recipe.summary, made, found, verdict)


def metadata_of(artifact: Artifact, report: dict) -> dict:
    """What the UI shows: the numbers, and the page with its plots inside."""
    figures = report["metrics"] | report["benchmarks"]
    numbers = {f"{key}/{name}": found[key] for name, found in figures.items() for key in ("base", "tuned", "gain")}
    intervals = {
        f"gain/{name}/interval": "{:+.3f} to {:+.3f}".format(*found["interval"]) for name, found in figures.items()
    }
    page = (artifact.path / "report.md").read_text()
    for plot in artifact.path.glob("*.png"):
        picture = base64.b64encode(plot.read_bytes()).decode()
        page = page.replace(f"({plot.name})", f"(data:image/png;base64,{picture})")
    return {
        **artifact.metadata(),
        **numbers,
        **intervals,
        "tokens_per_second": report["answering"]["tuned"]["tokens_per_second"],
        "peak_memory_mb": report["answering"]["tuned"]["peak_memory_mb"],
        "verdict": "passed" if report["verdict"]["passed"] else "failed",
        "report": dg.MetadataValue.md(page),
    }
