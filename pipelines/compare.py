"""Prints two exams side by side: settings, data, scores, and the answers in which they differ.

python -m pipelines.compare phi-2 mistral-7b-fennec              # what is in force of two recipes
python -m pipelines.compare phi-2@0a1b2c3d4e5f6071 phi-2         # an earlier adapter, report or version, and the last
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from finetuning.errors import FinetuningError
from resources.store.artifact import Artifact
from resources.store.store import Store

SHOWN = 3
USAGE, INPUT = 2, 4
# Whose fingerprint names an exam: its own, and those of what it is about and what it allowed.
NAMING = ("evaluation_report", "lora_adapter", "published_repo")
NAMED = "an adapter, a report or a published version"
SECTIONS_OF = ("raw_dataset", "chat_dataset", "retrieval_index", "quantized_base_model", "lora_adapter")


class Exam(NamedTuple):
    """A report, with those of the artifacts that it was made from which are still there."""

    name: str
    report: Artifact
    line: Mapping[str, Artifact]


def find_exam(name: str, store: Store) -> Exam:
    """Return the exam that `RECIPE` or `RECIPE@FINGERPRINT` names.

    Raises:
        FinetuningError: there is none.
    """
    recipe, _, fingerprint = name.partition("@")
    there = store.inventory()
    own = [artifact for artifact in there.artifacts if artifact.partition == recipe and not artifact.smoke]
    reports = {artifact.fingerprint: artifact for artifact in own if artifact.asset == "evaluation_report"}
    if not reports:
        examined = sorted({found.partition for found in there.artifacts if found.asset == "evaluation_report"})
        raise FinetuningError(
            f"{name}: {store.address} has no exam of a recipe {recipe!r}; it has those of "
            f"{', '.join(examined) or 'none'}. Make one: dg launch --job main_line --partition {recipe}"
        )
    if fingerprint:
        report = _named(fingerprint, own, reports)
    else:
        report = reports.get(store.in_force(store.home("evaluation_report", recipe)) or "")
    if report is None:
        known = ", ".join(f"{made.fingerprint} of adapter {made.inputs['lora_adapter']}" for made in reports.values())
        raise FinetuningError(f"{name}: there is no such exam, adapter or version. {recipe} has the exams {known}.")
    return Exam(name, report, _behind(report, there.artifacts))


def _named(fingerprint: str, own: list[Artifact], reports: Mapping[str, Artifact]) -> Artifact | None:
    """The report that a fingerprint, or the beginning of one, means; the last one of an adapter with several."""
    meant = [found for found in own if found.asset in NAMING and found.fingerprint.startswith(fingerprint)]
    for found in meant:
        if found.asset == "evaluation_report":
            return found
        if found.asset == "published_repo":
            return reports.get(found.inputs["evaluation_report"])
    adapters = {found.fingerprint for found in meant}
    about = [report for report in reports.values() if report.inputs["lora_adapter"] in adapters]
    return max(about, key=lambda report: report.created, default=None)


def _behind(report: Artifact, there: list[Artifact]) -> dict[str, Artifact]:
    """What a report was made from, as far as it is still there."""
    by_name = {(artifact.asset, artifact.fingerprint): artifact for artifact in there}
    found, waiting = {report.asset: report}, [report]
    while waiting:
        for key in waiting.pop().inputs.items():
            if key in by_name and key[0] not in found:
                found[key[0]] = by_name[key]
                waiting.append(by_name[key])
    return found


def compare(first: Exam, second: Exam, shown: int) -> str:
    """Return both side by side, as Markdown."""
    from finetuning.evaluation.side_by_side import side_by_side

    return side_by_side(_examined(first), _examined(second), shown)


def _examined(exam: Exam):
    import pandas as pd

    from finetuning.chat.chat_summary import ChatSummary
    from finetuning.evaluation.side_by_side import Examined
    from finetuning.evaluation.verdict import read_report
    from finetuning.training.summary import TrainingSummary

    exam.report.verify()
    sections = {**exam.report.sections}
    for asset in SECTIONS_OF:
        sections |= exam.line[asset].sections if asset in exam.line else {}
    facts = {"adapter": exam.report.inputs["lora_adapter"], "examined": exam.report.created}
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
        trained = exam.line["lora_adapter"].read(TrainingSummary)
        facts |= {
            "steps": f"{trained.steps:,}",
            "eval loss": f"{trained.eval_loss:.4f}",
            "trainable parameters": f"{trained.trainable_parameters:,}",
            "training": f"{trained.training_seconds:,.0f} s on {trained.device}",
            "memory at its peak": f"{trained.peak_memory_mb:,} MiB",
        }
    samples = pd.read_parquet(exam.report.path / "samples.parquet")
    return Examined(exam.name, sections, facts, read_report(exam.report.path), samples)


def main(arguments: list[str] | None = None) -> int:
    """The exit code of the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.compare", description="Put two exams side by side.")
    parser.add_argument("first", metavar="FIRST", help=f"a recipe, or RECIPE@FINGERPRINT of {NAMED}")
    parser.add_argument("second", metavar="SECOND", help="the other one")
    parser.add_argument("--rows", type=int, default=SHOWN, help=f"rows whose answers are shown ({SHOWN})")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page into this file")
    chosen = parser.parse_args(arguments)
    from resources.artifacts import Artifacts

    try:
        store = Artifacts.of_environment().store()
        page = compare(find_exam(chosen.first, store), find_exam(chosen.second, store), max(0, chosen.rows))
        if chosen.out:
            chosen.out.write_text(page)
    except (FinetuningError, OSError) as error:
        print(error, file=sys.stderr)
        return INPUT
    print(f"written: {chosen.out}" if chosen.out else page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
