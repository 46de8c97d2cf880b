"""Exams in the store: those in force, the one that a person names, and what their models were made from."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from assets.lineage import MERGE, summary_of
from finetuning.errors import FinetuningError
from finetuning.training.summary import TrainingSummary
from resources.store.artifact import MANIFEST, Artifact
from resources.store.store import Store

if TYPE_CHECKING:
    from finetuning.evaluation.side_by_side import Examined

EXAM = "evaluation_report"
SHOWN = 3  # rows whose answers are beside each other
SECTIONS_OF = ("raw_dataset", "chat_dataset", "retrieval_index", "quantized_base_model", "lora_adapter")


class Exam(NamedTuple):
    """A report, with those of the artifacts that it was made from which are still there.

    Of these the manifests are known; on object storage their files may be elsewhere.
    """

    name: str
    report: Artifact
    line: Mapping[str, Artifact]


class InForce(NamedTuple):
    """The exams in force of several recipes."""

    exams: list[Exam]
    incomplete: list[str]
    """The recipes whose exam is not there whole."""


def exams_in_force(store: Store, recipes: Iterable[str], smoke: bool) -> InForce:
    """Return the exam in force of each of these recipes that has one; of smoke runs, or of none of them."""
    there = store.inventory().artifacts
    reports = {(found.partition, found.fingerprint): found for found in there if found.asset == EXAM}
    in_force = {name: key for name in recipes if (key := store.in_force(store.home(EXAM, name)))}
    found = {name: reports[name, key] for name, key in in_force.items() if (name, key) in reports}
    exams = [Exam(name, report, made_from(report, there)) for name, report in found.items() if report.smoke == smoke]
    return InForce(exams, [name for name in in_force if name not in found])


def find_exam(name: str, store: Store) -> Exam:
    """Return the exam that `RECIPE`, `RECIPE@FINGERPRINT` or the folder of an artifact names.

    Raises:
        FinetuningError: there is none.
    """
    recipe, _, fingerprint = in_short(name).partition("@")
    there = store.inventory()
    own = [artifact for artifact in there.artifacts if artifact.partition == recipe and not artifact.smoke]
    reports = {artifact.fingerprint: artifact for artifact in own if artifact.asset == EXAM}
    if not reports:
        examined = sorted({found.partition for found in there.artifacts if found.asset == EXAM})
        raise FinetuningError(
            f"{name}: {store.address} has no exam of a recipe {recipe!r}; it has those of "
            f"{', '.join(examined) or 'none'}. Make one: dg launch --job main_line --partition {recipe}"
        )
    if fingerprint:
        exams = [Exam(name, report, made_from(report, there.artifacts)) for report in reports.values()]
        exam = _named(fingerprint, own, exams)
    else:
        report = reports.get(store.in_force(store.home(EXAM, recipe)) or "")
        exam = report and Exam(name, report, made_from(report, there.artifacts))
    if exam is None:
        known = ", ".join(f"{made.fingerprint} of adapter {made.inputs['lora_adapter']}" for made in reports.values())
        raise FinetuningError(f"{name}: there is no such exam, adapter or version. {recipe} has the exams {known}.")
    return exam


def in_short(name: str) -> str:
    """`RECIPE@FINGERPRINT` for the folder of an artifact; another name as it is."""
    manifest = Path(name) / MANIFEST
    if not manifest.is_file():
        return name
    made = json.loads(manifest.read_text())
    return f"{made['partition']}@{made['fingerprint']}"


def _named(fingerprint: str, own: list[Artifact], exams: list[Exam]) -> Exam | None:
    """The exam that a fingerprint, or the beginning of one, means.

    Of several, that is the one with this fingerprint, the one that allowed what has it, or the last one that was made
    from what has it.
    """
    by_report = {exam.report.fingerprint: exam for exam in exams}
    for found in own:
        if found.fingerprint.startswith(fingerprint):
            if found.asset == EXAM:
                return by_report[found.fingerprint]
            if allowed := by_report.get(found.inputs.get(EXAM, "")):
                return allowed
    adapters = [found.inputs["lora_adapter"] for found in own if _comes_of_an_adapter(found, fingerprint)]
    about = [
        exam
        for exam in exams
        if exam.report.inputs["lora_adapter"] in adapters
        or any(
            key.startswith(fingerprint) for made in (exam.report, *exam.line.values()) for key in made.inputs.values()
        )
    ]
    return max(about, key=lambda exam: exam.report.created, default=None)


def _comes_of_an_adapter(artifact: Artifact, fingerprint: str) -> bool:
    return artifact.fingerprint.startswith(fingerprint) and "lora_adapter" in artifact.inputs


def beside_the_one_before(name: str, before: str, store: Store) -> str:
    """The exam in force of a recipe beside an earlier one, as Markdown.

    Args:
        before: the fingerprint of the earlier report.

    Raises:
        FinetuningError: one of them is not there any more, or not what was written.
    """
    from finetuning.evaluation.side_by_side import side_by_side

    pair = (find_exam(one, store) for one in (f"{name}@{before}", name))
    return side_by_side(*(examined(exam, store) for exam in pair), shown=SHOWN)


def made_from(report: Artifact, there: Iterable[Artifact]) -> dict[str, Artifact]:
    """Return what a report was made from, as far as it is still there: these very files, by asset."""
    own = (artifact for artifact in there if artifact.partition == report.partition or artifact.is_shared)
    by_name = {(artifact.asset, artifact.fingerprint): artifact for artifact in own}
    found, waiting = {report.asset: report}, [report]
    while waiting:
        made = waiting.pop()
        for asset, fingerprint in made.inputs.items():
            part = by_name.get((asset, fingerprint))
            if part and asset not in found and made.contents.get(asset, part.content) == part.content:
                found[asset] = part
                waiting.append(part)
    return found


def examined(exam: Exam, store: Store) -> "Examined":
    """Read an exam: its report and rows, the settings of its line, and what is known of data and training.

    Raises:
        FinetuningError: it is not what was written, or another release wrote it.
    """
    from finetuning.chat.chat_summary import ChatSummary
    from finetuning.evaluation.side_by_side import Examined
    from finetuning.evaluation.verdict import read_report
    from finetuning.leaderboard.entrants import samples_of

    report = store.fetch(exam.report.path) or exam.report
    report.verify()
    sections = {**report.sections}
    for asset in SECTIONS_OF:
        sections |= exam.line[asset].sections if asset in exam.line else {}
    facts = {"adapter": report.inputs["lora_adapter"], "examined": report.created}
    if "quantized_base_model" in exam.line:
        base = exam.line["quantized_base_model"].resolved["base_model"]
        facts["base model"] = f"{base['source']} ({base['revision']})"
    if "raw_dataset" in exam.line:
        facts |= {f"data, {stem}": str(used) for stem, used in exam.line["raw_dataset"].resolved["revisions"].items()}
    if "chat_dataset" in exam.line:
        chat = exam.line["chat_dataset"].read(ChatSummary)
        dev = f", {chat.dev_rows:,} for choices" if chat.dev_rows else ""
        rows = f"{chat.train_rows:,} to learn, {chat.eval_rows:,} for the exam{dev}"
        facts |= {"rows": rows, "tokens to learn": f"{chat.tokens:,}"}
    if "lora_adapter" in exam.line:
        facts |= facts_of(exam.line["lora_adapter"])
    content = read_report(report.path)
    return Examined(exam.name, sections, facts, content, samples_of(report.path, next(iter(content.metrics))))


def facts_of(adapter: Artifact) -> dict[str, str]:
    """What is known of an adapter's training, or of those that were merged into it, in words."""
    made = summary_of(adapter)
    facts = {"trainable parameters": f"{made.trainable_parameters:,}"}
    if isinstance(made, TrainingSummary):
        return {
            "steps": f"{made.steps:,}",
            "eval loss": f"{made.eval_loss:.4f}",
            **facts,
            "training": f"{made.training_seconds:,.0f} s on {made.device}",
            "memory at its peak": f"{made.peak_memory_mb:,} MiB",
        }
    parts = adapter.resolved[MERGE]["parts"]
    return facts | {"merged from": ", ".join(f"{part['recipe']} at {part['revision']}" for part in parts)}
