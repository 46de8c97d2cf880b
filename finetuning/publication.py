"""The files of a repo as they go to the hub: path in the repo -> file on this machine."""

import json
from collections.abc import Mapping
from pathlib import Path

from finetuning.loftq import FILE
from finetuning.model_card import Base

# Of an artifact's folder: what is written anew for the repo, or is of no use there.
LEFT_OUT = {"README.md", "adapter_config.json", "artifact.json", "summary.json", FILE}
REPORT_FILES = ("report.md", "report.json", "metrics.png", "loss.png")


def adapter_files(folder: Path, adapter: Path, report: Path, base: Base, card: str) -> Mapping[str, Path]:
    """Adapter, tokenizer, card and report; the adapter's configuration names its base by repo id and commit.

    What has to be written for it goes into `folder`.
    """
    config = json.loads((adapter / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": base.repo_id, "revision": base.commit}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    (folder / "README.md").write_text(card)
    kept = {path.name: path for path in adapter.iterdir() if path.is_file() and path.name not in LEFT_OUT}
    written = {name: folder / name for name in ("adapter_config.json", "README.md")}
    return {**kept, **written, **{f"evaluation/{name}": report / name for name in REPORT_FILES}}


def base_files(folder: Path, base_model: Path, card: str) -> Mapping[str, Path]:
    """Weights, configuration and tokenizer of a base model, with a card that is written into `folder`."""
    readme = folder / "base.md"
    readme.write_text(card)
    return {
        **{path.name: path for path in base_model.iterdir() if path.is_file() and path.name not in LEFT_OUT},
        "README.md": readme,
    }


def merged_files(folder: Path, merged: Path, report: Path, card: str) -> Mapping[str, Path]:
    """A merged model with its tokenizer, a card that is written into `folder`, and the report on its adapter."""
    readme = folder / "README.md"
    readme.write_text(card)
    return {
        **{path.name: path for path in merged.iterdir() if path.is_file() and path.name not in LEFT_OUT},
        "README.md": readme,
        **{f"evaluation/{name}": report / name for name in REPORT_FILES},
    }
