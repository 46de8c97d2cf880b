"""The code location: every asset, job and resource. `-m pipelines.definitions` and workspace.yaml load it."""

import os
from pathlib import Path

import dagster as dg

from assets.chat_dataset import chat_dataset
from assets.evaluation_report import evaluation_report
from assets.lora_adapter import lora_adapter
from assets.published_repo import published_repo
from assets.quantized_base_model import quantized_base_model
from assets.raw_dataset import raw_dataset
from pipelines.jobs import JOBS
from resources.artifacts import ArtifactIOManager, Artifacts
from resources.gpu import Gpu
from resources.hub import LOCAL, Hub
from resources.launcher import Launcher

ROOT = Path(__file__).resolve().parent.parent

artifacts = Artifacts(root=os.environ.get("FINETUNING_ARTIFACTS", str(ROOT / "artifacts")))

defs = dg.Definitions(
    assets=[raw_dataset, chat_dataset, quantized_base_model, lora_adapter, evaluation_report, published_repo],
    jobs=JOBS,
    resources={
        "artifacts": artifacts,
        "io_manager": ArtifactIOManager(artifacts=artifacts),
        "gpu": Gpu(require=os.environ.get("FINETUNING_REQUIRE", "any")),
        "hub": Hub(
            address=os.environ.get("FINETUNING_HUB", LOCAL),
            state=os.environ.get("FINETUNING_HUB_STATE", str(ROOT / ".hub")),
            cache=str(ROOT / ".cache" / "huggingface"),
        ),
        "launcher": Launcher(),
    },
)
