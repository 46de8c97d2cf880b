"""The code location: every asset, job and resource. `-m pipelines.definitions` and workspace.yaml load it."""

import os
import warnings
from pathlib import Path

import dagster as dg

from assets.chat_dataset import chat_dataset
from assets.evaluation_report import evaluation_report
from assets.external_assets import PARENTS
from assets.hub_state import hub_state
from assets.lora_adapter import lora_adapter
from assets.merged_model import merged_model
from assets.published_merged_repo import published_merged_repo
from assets.published_repo import published_repo
from assets.quantized_base_model import quantized_base_model
from assets.raw_dataset import raw_dataset
from finetuning.recipe.smoke import is_smoke
from pipelines.code_references import linked
from pipelines.executor import executor
from pipelines.jobs import JOBS
from pipelines.schedules import SCHEDULES
from pipelines.sensors import SENSORS
from resources.artifacts import ArtifactIOManager, Artifacts
from resources.gpu import Gpu
from resources.hub import LOCAL, Hub
from resources.launcher import Launcher
from resources.ray_cluster.reach import steps_are_ray_jobs

ROOT = Path(__file__).resolve().parent.parent
# What `--select '*'` goes through is a beta feature of Dagster 1.13.
warnings.filterwarnings("ignore", "Parameter `include_sources` of function `AssetSelection", category=dg.BetaWarning)
# What libraries read once, when they are first imported, in the steps' processes and their children: caches stay in the
# checkout, nothing calls home, and progress bars (which flood the UI) give way to the steps' own lines.
ENVIRONMENT = {
    "HF_HOME": str(ROOT / ".cache" / "huggingface"),
    "MPLCONFIGDIR": str(ROOT / ".cache" / "matplotlib"),
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "TQDM_DISABLE": "1",
}
for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)


def setting(name: str, default: str) -> str:
    """The environment variable, or `default` where it is not set, or empty as a service's file leaves it."""
    return os.environ.get(name) or default


# Smoke runs have a store of their own, and a cache.
below = "/smoke" if is_smoke() else ""
artifacts = Artifacts(
    root=setting("FINETUNING_ARTIFACTS", str(ROOT / "artifacts")).rstrip("/") + below,
    cache=setting("FINETUNING_ARTIFACTS_CACHE", str(ROOT / ".cache" / "artifacts")) + below,
    cache_gb=setting("FINETUNING_ARTIFACTS_CACHE_GB", "50"),
    smoke=is_smoke(),
)

assets = [
    raw_dataset,
    chat_dataset,
    quantized_base_model,
    lora_adapter,
    evaluation_report,
    published_repo,
    merged_model,
    published_merged_repo,
    hub_state,
    *PARENTS,
]

defs = dg.Definitions(
    assets=dg.map_asset_specs(linked, assets),
    jobs=JOBS,
    schedules=SCHEDULES,
    sensors=SENSORS,
    executor=executor,
    resources={
        "artifacts": artifacts,
        "io_manager": ArtifactIOManager(artifacts=artifacts),
        "gpu": Gpu(
            require=setting("FINETUNING_REQUIRE", "any"),
            # A job of a cluster has its GPU to itself; a lock would keep those beside it waiting.
            locks=None if steps_are_ray_jobs() else setting("DAGSTER_HOME", str(ROOT / ".dagster")),
        ),
        "hub": Hub(
            address=setting("FINETUNING_HUB", LOCAL),
            state=setting("FINETUNING_HUB_STATE", str(ROOT / ".hub")),
            deadline=setting("FINETUNING_HUB_DEADLINE", "600"),
        ),
        "launcher": Launcher(
            kind=setting("FINETUNING_LAUNCHER", "local"), num_workers=setting("FINETUNING_PROCESSES", "1")
        ),
    },
)
