"""The plan of a small artifact, what writes it, and an end to its use as when a process ends."""

from pathlib import Path

from resources.store.artifact import Origin, fingerprint_of
from resources.store.locks import LEASES
from resources.store.plan import Plan
from resources.store.store import Store


def plan(store: Store, version: int = 1, asset: str = "thing") -> Plan:
    origin = Origin(asset=asset, partition="tiny", inputs={}, sections={"v": version}, resolved={})
    return Plan(store, origin, fingerprint_of(origin.as_json()), log=lambda text: None)


def write(folder: Path) -> dict:
    (folder / "data.txt").write_text("hello")
    return {"rows": 1}


def let_go():
    """This process no longer uses anything."""
    while LEASES:
        LEASES.popitem()[1].close()
