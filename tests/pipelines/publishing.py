"""A code location that publishes on its own: the shipped one, with a sensor and with jobs that publish and do no more.

dagster-daemon run -m tests.pipelines.publishing
"""

import dagster as dg

import pipelines.definitions as shipped
from assets.partitions import RECIPES

PARTITION = "locked"

publish, publish_merged = (
    dg.define_asset_job(job, selection=dg.AssetSelection.assets(asset), partitions_def=RECIPES)
    for job, asset in (("publish", "published_repo"), ("publish_merged", "published_merged_repo"))
)


@dg.sensor(jobs=[publish, publish_merged], default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=600)
def eager():
    """Asks for both as soon as it is asked."""
    for job in (publish, publish_merged):
        yield dg.RunRequest(job_name=job.name, partition_key=PARTITION, run_key=job.name)


defs = dg.Definitions.merge(shipped.defs, dg.Definitions(jobs=[publish, publish_merged], sensors=[eager]))
