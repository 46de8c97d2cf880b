"""The files of a repo as they go to the hub: path in the repo -> file on this machine."""

import json
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import ModelCardData, get_session

from finetuning.base_model.loftq import FILE
from finetuning.errors import FinetuningError
from finetuning.hub.event_files import write_curves
from finetuning.hub.publication import Base
from finetuning.hub_errors import UNREACHABLE

# Of an artifact's folder: what is written anew for the repo, or is of no use there.
LEFT_OUT = {"README.md", "adapter_config.json", "artifact.json", "summary.json", "tensorboard", FILE}
REPORT_FILES = ("report.md", "report.json", "metrics.png", "loss.png")


def adapter_files(
    folder: Path, adapter: Path, report: Path, base: Base, texts: Mapping[str, str], name: str
) -> Mapping[str, Path]:
    """Adapter, tokenizer, report, curves and texts; the adapter's configuration names its base by repo id and commit.

    What has to be written for it goes into `folder`.

    Args:
        texts: what the files of the repo that are text hold, by name: card and recipe.
        name: what TensorBoard calls the run.
    """
    config = json.loads((adapter / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": base.repo_id, "revision": base.commit}
    # Where the Hub finds event files, it shows them in a tab of their own.
    curves = write_curves(adapter / "tensorboard", folder / "runs" / name, name)
    return {
        **kept_of(adapter),
        **written(folder, {**texts, "adapter_config.json": json.dumps(config, indent=2)}),
        **({curves.relative_to(folder).as_posix(): curves} if curves else {}),
        **report_files(report),
    }


def merged_files(folder: Path, merged: Path, report: Path, texts: Mapping[str, str]) -> Mapping[str, Path]:
    """A merged model with its tokenizer, the report on its adapter, and the texts, which are written into `folder`."""
    return {**kept_of(merged), **written(folder, texts), **report_files(report)}


def base_files(folder: Path, base_model: Path, card: str) -> Mapping[str, Path]:
    """Weights, configuration and tokenizer of a base model, with a card that is written into `folder`."""
    readme = folder / "base.md"
    readme.write_text(card)
    return {**kept_of(base_model), "README.md": readme}


def kept_of(artifact: Path) -> dict[str, Path]:
    """The files of an artifact's folder that are published as they are, by their path in the repo.

    Those in folders are among them: a tokenizer has its named chat templates in one.
    """
    found = ((path.relative_to(artifact), path) for path in sorted(artifact.rglob("*")) if path.is_file())
    return {name.as_posix(): path for name, path in found if name.parts[0] not in LEFT_OUT}


def written(folder: Path, texts: Mapping[str, str]) -> dict[str, Path]:
    """The files that `folder` then holds."""
    for name, text in texts.items():
        (folder / name).write_text(text)
    return {name: folder / name for name in texts}


def report_files(report: Path) -> dict[str, Path]:
    """The report's pages and plots, as far as there are any; its samples and answers stay here."""
    return {f"evaluation/{name}": report / name for name in REPORT_FILES if (report / name).exists()}


def require_valid(header: ModelCardData, endpoint: str, where: str) -> None:
    """Ask the hub at `endpoint` whether it takes a card with this metadata, before anything is published.

    `ModelCard.validate` would show the card to the hub that is read from.

    Raises:
        FinetuningError: it refuses the card.
    """
    asked = {"repoType": "model", "content": f"---\n{header.to_yaml()}\n---\n"}
    try:
        answer = get_session().post(f"{endpoint}/api/validate-yaml", json=asked, headers={"Accept": "text/plain"})
        if answer.status_code == 400:
            raise FinetuningError(f"{where}: nothing was published: the hub refuses the model card: {answer.text}")
    except UNREACHABLE:
        return  # the commit asks it again, and says why when the hub does not answer
