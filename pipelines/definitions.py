"""The code location: every asset, job and resource. `-m pipelines.definitions` and workspace.yaml load it."""

import os
import warnings

import dagster as dg

from assets.chat_dataset import chat_dataset
from assets.documents import documents
from assets.evaluation_report import evaluation_report
from assets.external_assets import PARENTS
from assets.hub_state import hub_state
from assets.leaderboard import leaderboard
from assets.lora_adapter import lora_adapter
from assets.merged_model import merged_model
from assets.passages import passages
from assets.published_merged_repo import published_merged_repo
from assets.published_repo import published_repo
from assets.quantized_base_model import quantized_base_model
from assets.raw_dataset import raw_dataset
from assets.retrieval_index import retrieval_index
from assets.variants import variants
from finetuning.settings import ROOT, text_of
from pipelines.code_references import linked
from pipelines.command_line import require_partition
from pipelines.executor import executor
from pipelines.jobs import JOBS
from pipelines.schedules import SCHEDULES, expected_weekly
from pipelines.sensors import SENSORS
from resources.artifacts import ArtifactIOManager, Artifacts
from resources.environment import prepare_libraries
from resources.gpu import Gpu
from resources.hub import Hub
from resources.launcher import Launcher
from resources.ray_cluster.reach import steps_are_ray_jobs

# What `--select '*'` goes through is a beta feature of Dagster 1.13.
warnings.filterwarnings("ignore", "Parameter `include_sources` of function `AssetSelection", category=dg.BetaWarning)
prepare_libraries()

artifacts = Artifacts.of_environment()

assets = [
    raw_dataset,
    documents,
    passages,
    retrieval_index,
    chat_dataset,
    quantized_base_model,
    variants,
    lora_adapter,
    evaluation_report,
    published_repo,
    merged_model,
    published_merged_repo,
    hub_state,
    leaderboard,
    *PARENTS,
]

defs = dg.Definitions(
    assets=dg.map_asset_specs(lambda spec: expected_weekly(linked(spec)), assets),
    jobs=JOBS,
    schedules=SCHEDULES,
    sensors=SENSORS,
    executor=executor,
    resources={
        "artifacts": artifacts,
        "io_manager": ArtifactIOManager(artifacts=artifacts),
        "gpu": Gpu(
            require=text_of("require"),
            # A job of a cluster has its GPU to itself; a lock would keep those beside it waiting.
            locks=None if steps_are_ray_jobs() else os.environ.get("DAGSTER_HOME") or str(ROOT / ".dagster"),
        ),
        "hub": Hub.of_environment(),
        "launcher": Launcher(kind=text_of("launcher"), num_workers=text_of("processes")),
    },
)
require_partition(defs)
