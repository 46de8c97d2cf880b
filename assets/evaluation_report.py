"""The asset `evaluation_report`: base and tuned model beside each other, and the verdict on this very adapter."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.mistakes import explained
from assets.partitions import BASE_MODELS, OWNERS
from assets.verdicts import knows, version_to_beat
from finetuning.errors import FinetuningError
from finetuning.progress import Progress
from finetuning.recipe import Recipe, load
from finetuning.verdict import judge
from resources.artifacts import Artifact, Artifacts, Plan
from resources.gpu import Gpu
from resources.hub import Hub, HubConnection
from resources.versions import WEIGHTS, Head, download

if TYPE_CHECKING:
    from finetuning.evaluation import Exam

# The settings that the base model's answers depend on.
HOW_IT_ANSWERS = {"max_new_tokens", "batch_size"}


@dg.asset(
    partitions_def=BASE_MODELS,
    group_name="proof",
    kinds={"report", "python"},
    owners=OWNERS,
    code_version="4",
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
    hub: Hub,
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
    plan = artifacts.plan(
        context,
        sections={"evaluation": recipe.evaluation.model_dump(mode="json"), "summary": recipe.summary},
        resolved={},
        inputs=chain[1:],
    )
    with hub.connect() as connection:
        head = published_now(context, recipe, connection, lora_adapter)

        def write(folder):
            found = examine(context, artifacts, gpu, recipe, chain, folder, connection, head)
            return report_on(recipe, chain, found, folder)

        artifact = plan.obtain(write, still_valid=lambda artifact: knows(report_in(artifact), head))
    report = report_in(artifact)
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


def report_in(artifact: Artifact) -> dict[str, Any]:
    """The numbers of the report that the artifact holds."""
    return json.loads((artifact.path / "report.json").read_text())


def published_now(
    context: dg.AssetExecutionContext, recipe: Recipe, connection: HubConnection, adapter: Artifact
) -> Head | None:
    """The version that the adapter is compared with beside its base; none while the hub can not be asked.

    An exam is worth having without it. Publishing asks again, and insists.
    """
    try:
        return version_to_beat(recipe, connection, adapter)
    except FinetuningError as error:
        context.log.warning(f"not compared with the version that is published now, if there is one: {error}")
        return None


def examine(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    gpu: Gpu,
    recipe: Recipe,
    chain: tuple,
    folder: Path,
    connection: HubConnection,
    head: Head | None,
) -> dict[str, Any]:
    """What base, tuned and published model came to.

    The base's answers are those that another recipe of this base left, if any.
    """
    _, chat_dataset, base_model, adapter = chain
    kwargs, spec = gpu.model_kwargs(recipe.base_model), recipe.evaluation
    adapter.verify()
    with Progress(context.log.info, "loading libraries") as progress:
        from finetuning.evaluation import evaluate, exam_of, sit

        exam = exam_of(spec, chat_dataset.path, recipe.base_model.trust_remote_code)

        def answer(by: Path | None, out: Path, name: str = "tuned") -> dict[str, Any]:
            with gpu.exclusive(context.log.info):
                return sit(spec, exam, base_model.path, by, kwargs, progress, out, name)

        def plan(beside: tuple[str, str], commit: str | None = None) -> Plan:
            return plan_of_answers(context, artifacts, recipe, exam, chat_dataset, base_model, kwargs, beside, commit)

        base = plan(("base_answers", base_model.fingerprint)).obtain(lambda out: answer(None, out))
        tuned = answer(adapter.path, folder)
        published = beside_published(connection, head, recipe, alike(chat_dataset, base_model), plan, answer, folder)
    answering = {"base": base.summary | {"fingerprint": base.fingerprint}, "tuned": tuned}
    return evaluate(spec, exam, base.path, folder) | {"answering": answering, "published": published}


def alike(chat_dataset: Artifact, base_model: Artifact) -> dict[str, Any]:
    """What two versions have in common that can answer the same prompts."""
    return {"base_model": base_model.fingerprint, "chat_template": chat_dataset.resolved["chat_template"]}


def beside_published(
    connection: HubConnection,
    head: Head | None,
    recipe: Recipe,
    common: dict[str, Any],
    plan: Callable[..., Plan],
    answer: Callable[..., dict[str, Any]],
    folder: Path,
) -> dict[str, Any] | None:
    """What `judge` is to know of the version that is published now; None where there is none.

    Raises:
        FinetuningError: that version can not be loaded, or memory ran out.
    """
    if head is None or head.report is None or head.adapter is None:
        return None
    from finetuning.evaluation import compare_with_published

    known = {"repo_id": head.repo_id, "tag": head.tag or head.commit, "commit": head.commit, "adapter": head.adapter}
    other = [name for name, value in common.items() if head.report.get("alike", {}).get(name) != value]
    if other:
        return known | {"why": f"it has another {' and another '.join(other)}"}

    def write(out: Path) -> dict[str, Any]:
        with TemporaryDirectory() as adapter:
            download(connection, head, Path(adapter))
            return answer(Path(adapter), out, "published")

    try:
        answers = plan(("published_answers", head.adapter), head.commit).obtain(write)
    except FinetuningError as error:
        raise FinetuningError(
            f"{recipe.file}: the version that is published now ({head.repo_id} at {head.commit}) can not be compared "
            f"with: {error} Mend it, or write evaluation.no_worse_than_published: false."
        ) from error
    return known | {"metrics": compare_with_published(recipe.evaluation, answers.path, folder)}


def plan_of_answers(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    recipe: Recipe,
    exam: "Exam",
    chat_dataset: Artifact,
    base_model: Artifact,
    model_kwargs: dict[str, Any],
    beside: tuple[str, str],
    commit: str | None,
) -> Plan:
    """The artifact of a model's answers: for the base, the same for all adapters that are asked the same.

    Args:
        beside: the name of the artifact, and whose answers they are.
        commit: the adapter's in its repo, where the base model does not answer alone.
    """
    from finetuning.evaluation import measures_loss

    return artifacts.plan(
        context,
        sections={"evaluation": recipe.evaluation.model_dump(mode="json", include=HOW_IT_ANSWERS)},
        resolved={
            "chat_template": chat_dataset.resolved["chat_template"],
            "rows": exam.digest(),
            "loss": measures_loss(recipe.evaluation),
            # Answers of one kernel, or of one machine, are not compared with those of another.
            "model_kwargs": model_kwargs,
            **({"adapter": commit} if commit else {}),
        },
        inputs=[base_model],
        beside=beside,
    )


def report_on(recipe: Recipe, chain: tuple, found: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The report that `folder` then holds."""
    from finetuning.report import Made, write_report

    raw_dataset, chat_dataset, base_model, adapter = chain
    made = Made(
        adapter=adapter.fingerprint,
        files={name: digest for name, digest in adapter.files.items() if name == WEIGHTS},
        alike=alike(chat_dataset, base_model),
        training=adapter.summary,
        settings=adapter.sections,
        versions=adapter.versions,
        base_model=base_model.resolved["base_model"],
        sources=raw_dataset.summary["sources"],
        chat=chat_dataset.summary,
    )
    verdict = judge(recipe.evaluation, found["metrics"], found["published"])
    return write_report(folder, recipe.name, recipe.summary, made, found, verdict)


def metadata_of(artifact: Artifact, report: dict) -> dict:
    """What the UI shows: the numbers, and the page with its plots inside."""
    numbers = {
        f"{key}/{name}": found[key] for name, found in report["metrics"].items() for key in ("base", "tuned", "gain")
    }
    intervals = {
        f"gain/{name}/interval": "{:+.3f} to {:+.3f}".format(*found["interval"])
        for name, found in report["metrics"].items()
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
