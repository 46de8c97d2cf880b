"""Every name that Ray 2.60 keeps to itself and that this project needs: why, and what would take its place.

Functions, each with its own import: `ray.train` takes seconds, and Ray is not installed where no cluster is used. What
`pipelines/ray_executor.py` extends of dagster-ray is no private module of it.
"""


def limits_of_the_cluster() -> dict[str, float]:
    """Return how much of each resource the connected cluster may grow to, where its autoscaler says so.

    Public: none; `ray.cluster_resources` has what is there now.
    """
    from ray._private.state import state

    return dict(state.get_max_resources_from_cluster_config() or {})


def name_of_the_checkpoint_list() -> str:
    """Return the name of the file in which Ray Train keeps its list of checkpoints.

    Public: none. Ray writes it in place, and a training whose list is torn cannot be continued.
    """
    from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME

    return CHECKPOINT_MANAGER_SNAPSHOT_FILENAME


def nodes_alive(address: str) -> int:
    """Return how many nodes are up in the cluster whose head is at the address, for tests.

    Public: `ray.nodes`, which needs a process that is connected to the cluster, and stays so.
    """
    from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]

    return sum(node.state == 0 for node in GcsClient(address=address).get_all_node_info(timeout=5).values())
