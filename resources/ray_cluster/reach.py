"""Whether a run's steps are jobs of a Ray cluster, as the environment says, and what such a cluster cannot work with.

>>> steps_are_ray_jobs()  # FINETUNING_EXECUTOR=ray
True
"""

from collections.abc import Collection
from ipaddress import ip_address

import dagster as dg
import psutil

from finetuning.errors import InfrastructureError
from finetuning.settings import LOCAL, Settings, is_set, text_of, variable
from resources.dagster_internals import SqliteRunStorage


def steps_are_ray_jobs() -> bool:
    """Return whether they are; else each is a process of this machine.

    Raises:
        InfrastructureError: FINETUNING_EXECUTOR is neither.
    """
    return Settings.read("executor").executor == "ray"


def require_reachable(instance: dg.DagsterInstance, nodes: Collection[str]) -> None:
    """Check that what the steps share can be reached from all nodes, of which these are the addresses.

    A folder of artifacts that was named is taken for one that all nodes see.

    Raises:
        InfrastructureError: something of it is on this machine alone, and a node is not.
    """
    here = {address.address for interface in psutil.net_if_addrs().values() for address in interface}
    elsewhere = sorted(node for node in set(nodes) - here if not ip_address(node).is_loopback)
    if not elsewhere:
        return
    faults = []
    if isinstance(instance.run_storage, SqliteRunStorage):
        faults.append("the instance keeps its runs in SQLite files: take deploy/dagster.yaml, with PostgreSQL")
    for name in ("source_hub", "hub"):
        if text_of(name) == LOCAL:
            faults.append(f"{variable(name)}: local is a server on loopback: set it to the address of a hub")
    if not is_set("artifacts"):
        faults.append("FINETUNING_ARTIFACTS: not set: name a folder that all nodes share, or an address such as s3://…")
    if faults:
        raise InfrastructureError(
            f"FINETUNING_EXECUTOR: ray, and the cluster has nodes on other machines ({', '.join(elsewhere[:3])}"
            f"{', …' if elsewhere[3:] else ''}), which do not reach what is on this one:\n" + "\n".join(faults)
        )
