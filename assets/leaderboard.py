"""The asset `leaderboard`: the exams in force of all recipes beside each other. It has no partitions."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.exams import EXAM, Exam, InForce, examined, exams_in_force
from assets.failures import explained
from assets.lineage import summary_of
from assets.materialized import materialized, page_of
from assets.partitions import OWNERS, RECIPES
from finetuning.base_model.quantization_summary import QuantizationSummary
from finetuning.errors import FinetuningError
from finetuning.public_names import public_base
from finetuning.recipe.smoke import load_for_run, smoke_repo
from finetuning.settings import Settings
from finetuning.training.summary import TrainingSummary
from resources.artifacts import Artifacts
from resources.hub import Hub
from resources.store.artifact import Artifact
from resources.store.store import Store

if TYPE_CHECKING:
    from finetuning.leaderboard.document import Leaderboard
    from finetuning.leaderboard.entrants import Entrant

NAME = "leaderboard"
ALL = "all"  # where other artifacts have a partition
MIB = 2**20
TITLE = "Publish leaderboard"  # of commits


@dg.asset(
    deps=[dg.AssetDep(EXAM, partition_mapping=dg.AllPartitionMapping())],
    group_name="proof",
    kinds={"report", "python"},
    tags={"hub": "written"},
    owners=OWNERS,
    code_version="1",
)
@explained()
def leaderboard(context: dg.AssetExecutionContext, artifacts: Artifacts, hub: Hub) -> dg.MaterializeResult[Artifact]:
    """Which of all models is best for a task: those whose exams asked the same rows, beside each other.

    It says which differences are more than chance and, where they are not, which models may be the best; and what each
    model costs: its size, its training, its speed and its memory. It is out of date when one of the exams is made anew.
    """
    store = artifacts.store(context.log.info)
    found = exams_in_force(store, RECIPES.get_partition_keys(), artifacts.smoke)
    if not found.exams:
        raise FinetuningError(
            f"{store.address}: no recipe has an exam yet, and a leaderboard is about exams. Make one or more: "
            "dg launch --job main_line --partition NAME"
        )
    price = Settings.read("gpu_hour_price").gpu_hour_price
    licenses = {exam.name: license_of(exam.name) for exam in found.exams}
    artifact = artifacts.plan(
        context,
        sections={},
        resolved={
            "exams": {exam.name: identity(exam) | {"license": licenses[exam.name]} for exam in found.exams},
            "incomplete": found.incomplete,
            "gpu_hour_price": price,
        },
        beside=(NAME, ALL),
    ).obtain(
        lambda folder: write(folder, found, store, licenses, price),
        still_valid=lambda artifact: not artifact.summary["unreadable"],  # it may have been mended
    )
    board = read(artifact)
    for group in summaries(board):
        context.log.info(group)
    return materialized(artifact, metadata_of(artifact, board) | publish(context, artifact, board, hub))


def publish(context: dg.AssetExecutionContext, artifact: Artifact, board: "Leaderboard", hub: Hub) -> dict[str, Any]:
    """Publish the leaderboard where a setting names a repo for it; return where it lies.

    The same leaderboard makes no second commit.
    """
    repo = Settings.read("leaderboard_repo").leaderboard_repo
    if not repo:
        return {}
    from finetuning.leaderboard.card import card_files

    with hub.connect(log=context.log.warning) as models, TemporaryDirectory() as folder:
        connection = replace(models, kind="dataset")
        publication = connection.publish(
            connection.repo_id(smoke_repo(repo) if board.smoke else repo),
            card_files(board, artifact.path, Path(folder)),
            tag=artifact.fingerprint,
            title=TITLE,
            private=None,
        )
    url = f"{models.endpoint}/datasets/{publication.repo_id}"
    return {"repo_id": publication.repo_id, "commit": publication.commit, "url": dg.MetadataValue.url(url)}


def license_of(name: str) -> str | None:
    """What the recipe says of the licence; None while the recipe is wrong."""
    try:
        return load_for_run(name).hub.license
    except FinetuningError:
        return None


def identity(exam: Exam) -> dict[str, Any]:
    """What stands for an exam in the leaderboard's fingerprint: the report, and the files of all that it is about."""
    files = {asset: made.content for asset, made in exam.line.items() if asset != EXAM}
    return {"report": exam.report.fingerprint, "content": exam.report.content, "made_from": files}


def write(
    folder: Path, found: InForce, store: Store, licenses: Mapping[str, str | None], price: float
) -> dict[str, int]:
    """Write the leaderboard into `folder`; an exam that cannot be read takes no part, and the page says why.

    Raises:
        FinetuningError: none of them can be read.
    """
    from finetuning.leaderboard.document import LeftOut
    from finetuning.leaderboard.leaderboard import write_leaderboard

    entrants, unreadable = [], []
    for exam in found.exams:
        try:
            entrants.append(entrant_of(exam, store, licenses[exam.name], price))
        except FinetuningError as error:
            unreadable.append(LeftOut(name=exam.name, why=str(error)))
    if not entrants:
        raise FinetuningError("\n".join(f"{one.name}: {one.why}" for one in unreadable))
    incomplete = [
        LeftOut(name=name, why=f"its exam is not there whole: materialize {EXAM}") for name in found.incomplete
    ]
    board = write_leaderboard(folder, entrants, [*unreadable, *incomplete], smoke=found.exams[0].report.smoke)
    return {"exams": len(entrants), "groups": len(board.groups), "unreadable": len(unreadable)}


def entrant_of(exam: Exam, store: Store, license: str | None, price: float) -> "Entrant":
    """Read one exam, and what the model of it is and took.

    Raises:
        FinetuningError: it is not what was written, or another release wrote it.
    """
    from finetuning.leaderboard.document import Costs
    from finetuning.leaderboard.entrants import Entrant

    read = examined(exam, store)
    answering = read.report.answering["tuned"]
    costs = Costs(
        tokens_per_second=answering.tokens_per_second,
        peak_memory_mb=answering.peak_memory_mb,
        license=license,
        **model_of(exam),
        **training_of(exam, price),
    )
    return Entrant(read, exam.report.fingerprint, costs)


def model_of(exam: Exam) -> dict[str, Any]:
    """Name and size of base model and adapter, as far as their artifacts are still there."""
    base, adapter = exam.line.get("quantized_base_model"), exam.line.get("lora_adapter")
    if base is None or adapter is None:
        return {}
    loaded, trained = base.read(QuantizationSummary), summary_of(adapter)
    return {
        "base_model": public_base(base.resolved["base_model"]),
        "parameters": loaded.parameters + trained.trainable_parameters,
        "size_mb": round(loaded.size_mb + adapter.bytes / MIB, 1),
    }


def training_of(exam: Exam, price: float) -> dict[str, Any]:
    """How long training took, on what and at what price, as far as the adapter is still there and was trained."""
    adapter = exam.line.get("lora_adapter")
    trained = adapter and summary_of(adapter)
    if not isinstance(trained, TrainingSummary):
        return {}
    hours = trained.training_seconds / 3600 * trained.processes
    return {
        "training_seconds": trained.training_seconds,
        "training_device": trained.device,
        "training_processes": trained.processes,
        "training_price": round(hours * price, 4) if price else None,
    }


def read(artifact: Artifact) -> "Leaderboard":
    """The document of a leaderboard that is there."""
    import json

    from finetuning.leaderboard.document import Leaderboard
    from finetuning.leaderboard.leaderboard import DOCUMENT

    return Leaderboard.of(json.loads((artifact.path / DOCUMENT).read_text()), str(artifact.path / DOCUMENT))


def summaries(board: "Leaderboard") -> Iterator[str]:
    """Return for each group of several models which of them may be the best, a line each."""
    from finetuning.leaderboard.page import choice, title_of

    for group in board.groups:
        if len(group.models) > 1:
            yield f"{title_of(group)}: {choice(group).replace('**', '')}"
    for one in board.left_out:
        yield f"left out: {one.name}: {one.why}"


def metadata_of(artifact: Artifact, board: "Leaderboard") -> dict[str, Any]:
    """What the UI shows: the page with its plot inside, and the models that may be the best."""
    from finetuning.leaderboard.leaderboard import PAGE

    told = list(summaries(board))
    return {
        "leaderboard": page_of(artifact, PAGE),
        **({"best": dg.MetadataValue.md("\n".join(f"- {line}" for line in told))} if told else {}),
        "exams": sum(len(group.models) for group in board.groups),
        "groups": len(board.groups),
        "left_out": len(board.left_out),
    }
