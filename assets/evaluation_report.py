"""The asset `evaluation_report`: base and tuned model beside each other, and the verdict on this very adapter."""

from dataclasses import replace
from pathlib import Path

import dagster as dg

from assets.examination import Examination
from assets.exams import EXAM, beside_the_one_before
from assets.failures import explained
from assets.judging import judging_artifacts
from assets.lineage import Line
from assets.materialized import materialized, page_of
from assets.partitions import GPU_POOL, OWNERS, RECIPES
from assets.publishing_lock import knows, version_to_beat
from finetuning.errors import FinetuningError
from finetuning.evaluation.benchmark_tasks import tasks_revision
from finetuning.evaluation.report import Findings, JudgeReport, Report
from finetuning.evaluation.rewarded import with_reward
from finetuning.evaluation.verdict import of_smoke_run, read_report, verdict_in_words
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run
from resources.artifacts import Artifacts
from resources.gpu import Gpu
from resources.hub import Hub
from resources.hub_client.connection import HubConnection
from resources.hub_client.versions import Head
from resources.store.artifact import Artifact
from resources.store.store import Store

SHOWN = 8  # questions with their passages
SHORT = 10.0  # seconds that an evaluation waits for a hub that is out; publishing waits longer


@dg.asset(
    partitions_def=RECIPES,
    group_name="proof",
    kinds={"report", "python"},
    tags={"gpu": "used", "hub": "read"},
    owners=OWNERS,
    pool=GPU_POOL,
    code_version="9",
    check_specs=[
        dg.AssetCheckSpec(
            "verdict",
            asset="evaluation_report",
            description="The tuned model meets what its recipe's gate asks for or, where it sets none, the rules that "
            "hold without one. Nothing is published otherwise.",
            blocking=True,
            partitions_def=RECIPES,
        )
    ],
)
@explained()
def evaluation_report(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    gpu: Gpu,
    hub: Hub,
    lora_adapter: Artifact,
):
    """An exam: the model before and after training answers the same questions, none of which it has seen.

    The page shows both scores, how sure the difference is, and answers side by side. Its verdict says whether the
    tuned model may be published.
    """
    recipe = load_for_run(context.partition_key)
    # An adapter from other rows than those in force may have learned these, and one from another base is another model.
    line = Line.behind(lora_adapter, artifacts, context.log.info)
    examined, by_data, measured_by = recipe, {}, {}
    if not recipe.evaluation.metrics:
        line.chat_dataset.verify()
        from finetuning.evaluation.references import references_of, with_metrics

        references = references_of(line.chat_dataset.path, recipe.evaluation.rows)
        examined = with_metrics(recipe, references, context.log.info)
        by_data = {"metrics": list(examined.evaluation.metrics)}
    judging = judging_artifacts(recipe, artifacts, context.log.info)
    if recipe.evaluation.judge:
        from finetuning.judge.choices import human_choices, revision_of

        measured_by = {"choices": revision_of(human_choices(recipe))}
        measured_by |= {"judge": judging.revision} if judging else {}
    plan = artifacts.plan(
        context,
        sections=sections(recipe, "evaluation_report"),
        resolved={**tasks_revision(recipe.evaluation), **by_data, **measured_by},
        inputs=[line.chat_dataset, line.quantized_base_model, lora_adapter],
    )
    with hub.connect(log=context.log.warning) as connection:
        head = published_now(context, recipe, artifacts, connection, lora_adapter)

        def write(folder):
            exam = Examination(context, artifacts, gpu, examined, line, folder, judging)
            found = exam.hold(connection, head)
            return report_on(examined, line, found, folder)

        store = artifacts.store(context.log.info)
        before = store.in_force(store.home(EXAM, recipe.name))
        artifact = plan.obtain(write, still_valid=lambda artifact: knows(read_report(artifact.path), head))
    report = read_report(artifact.path)
    verdict = report.verdict
    severity = dg.AssetCheckSeverity.WARN if recipe.smoke else dg.AssetCheckSeverity.ERROR
    for reason in verdict.reasons:
        (context.log.info if verdict.passed or recipe.smoke else context.log.error)(f"verdict: {reason}")
    return materialized(
        artifact,
        metadata_of(artifact, report) | beside_before(context, artifact, before, store),
        [
            dg.AssetCheckResult(
                check_name="verdict",
                passed=verdict.passed,
                severity=severity,
                description="; ".join(verdict.reasons),
                metadata=numbers_in(report) | intervals_in(report),
            )
        ],
    )


def published_now(
    context: dg.AssetExecutionContext,
    recipe: Recipe,
    artifacts: Artifacts,
    connection: HubConnection,
    adapter: Artifact,
) -> Head | None:
    """The version that the adapter is compared with beside its base; none while the hub cannot be asked.

    An exam is worth having without it. Publishing asks again, and insists.
    """
    try:
        quickly = replace(connection, deadline=min(connection.deadline, SHORT))
        return version_to_beat(recipe, artifacts, quickly, adapter, context.log.info)
    except FinetuningError as error:
        context.log.warning(f"not compared with the version that is published now, if there is one: {error}")
        return None


def report_on(recipe: Recipe, line: Line, found: Findings, folder: Path) -> Report:
    """Judge what the exam found, and write the report into `folder`."""
    from finetuning.evaluation.evaluation_report import write_report
    from finetuning.evaluation.judged import verdict_on

    spec, in_context = recipe.evaluation, found.context is not None
    if in_context and line.documents and line.retrieval_index:
        from finetuning.evaluation.with_passages import without_secrets_of

        places = (line.chat_dataset.path, line.retrieval_index.path, line.documents.path)
        found = replace(found, samples=without_secrets_of(found.samples, *places))
    verdict = verdict_on(spec, found, in_context)
    if curve := line.lora_adapter.summary.get("reward_curve"):
        main = spec.metrics[0]
        begun = found.start.metrics.get(main) if found.start and found.start.metrics else None
        gain, before = (begun, "where it started") if begun else (found.metrics[main], "the base model")
        verdict = with_reward(verdict, curve, (main, gain), before)
    verdict = of_smoke_run(verdict) if recipe.smoke else verdict
    return write_report(folder, recipe, line.made(), found, verdict)


def metadata_of(artifact: Artifact, report: Report) -> dict:
    """What the UI shows: the numbers, and the page with its plots inside."""
    return {
        "verdict": verdict_in_words(report.verdict),
        "report": page_of(artifact, "report.md"),
        **(passages_in(artifact) if report.context else {}),
        "rows": report.rows,
        **(judge_of(report.judge) if report.judge else {}),
        **numbers_in(report),
        **intervals_in(report),
        "tokens_per_second": report.answering["tuned"].tokens_per_second,
        "peak_memory_mb": report.answering["tuned"].peak_memory_mb,
    }


def beside_before(
    context: dg.AssetExecutionContext, artifact: Artifact, before: str | None, store: Store
) -> dict[str, dg.MarkdownMetadataValue]:
    """The exam beside the one that was in force until now, as `pipelines.compare` shows two; none of a smoke run."""
    if before is None or before == artifact.fingerprint or artifact.smoke:
        return {}
    try:
        return {"beside_the_one_before": dg.MetadataValue.md(beside_the_one_before(artifact.partition, before, store))}
    except FinetuningError as error:
        context.log.warning(f"not shown beside the exam before: {error}")
        return {}


def passages_in(artifact: Artifact) -> dict[str, dg.MarkdownMetadataValue]:
    """Questions with the passages that were found for them, beside the answers: of those that went wrong first."""
    import pandas as pd

    from finetuning.evaluation.evaluation_report import SAMPLES, quoted

    rows = pd.read_parquet(artifact.path / SAMPLES).sort_values("tuned_score", kind="stable")[:SHOWN]
    columns = (rows[name].tolist() for name in ("asked", "reference", "tuned", "base"))
    said = [
        f"{quoted(asked)}\n\n**Reference** {reference} · **tuned** {tuned} · **base** {base}"
        for asked, reference, tuned, base in zip(*columns, strict=True)
    ]
    return {"passages": dg.MetadataValue.md("\n\n---\n\n".join(said))}


def judge_of(found: JudgeReport) -> dict[str, dg.MarkdownMetadataValue]:
    """What the judge made of the answers, and how far it is to be trusted, in words."""
    from finetuning.evaluation.judged import judge_in_words

    return {"judge": dg.MetadataValue.md("\n\n".join(judge_in_words(found)))}


def numbers_in(report: Report) -> dict[str, float]:
    """What base and tuned model came to, and the gain (above 0 for the better), for each metric and benchmark."""
    return {
        f"{key}/{name}": value
        for name, found in report.figures.items()
        for key, value in (("base", found.base), ("tuned", found.tuned), ("gain", found.improvement))
    }


def intervals_in(report: Report) -> dict[str, str]:
    """How sure each gain is."""
    return {
        f"gain/{name}/interval": "{:+.4f} to {:+.4f}".format(*found.improvement_interval)
        for name, found in report.figures.items()
    }
