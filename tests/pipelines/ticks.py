"""Sensors, tick by tick, in a process of their own as the daemon's code server is."""

import json

TICKS = """
import datetime, json, sys
import dagster as dg
from pipelines.definitions import defs
sensors = {sensor.name: sensor for sensor in defs.sensors}
print("ready", flush=True)
with dg.DagsterInstance.ephemeral() as instance:
    for line in sys.stdin:
        name, cursor = json.loads(line)
        resources = {name: defs.resources[name] for name in ("artifacts", "hub")}
        context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources, definitions=defs)
        found = sensors[name].evaluate_tick(context)
        seen = [[event.partition, event.metadata["version"].value] for event in found.asset_events]
        runs = {run.partition_key: run.run_key for run in found.run_requests}
        print(json.dumps({"cursor": found.cursor, "runs": runs, "seen": seen}), flush=True)
"""


class Daemon:
    """A process that has loaded the code location and answers ticks, with all that it writes beside them."""

    def __init__(self, world, **environment):
        self.names = {path.stem for path in (world.root / "recipes").glob("*.yaml")}
        self.process = world.started("-c", TICKS, **environment)

    def __enter__(self):
        self.until("ready")
        return self

    def __exit__(self, *error):
        self.process.communicate()

    def until(self, start):
        """The lines up to the first one that begins so."""
        said = []
        assert self.process.stdout
        for line in self.process.stdout:
            said.append(line)
            if line.startswith(start):
                return said
        raise AssertionError("".join(said))

    def tick(self, sensor, cursor=None):
        assert self.process.stdin
        self.process.stdin.write(json.dumps([sensor, cursor]) + "\n")
        self.process.stdin.flush()
        *said, answer = self.until('{"cursor"')
        found = json.loads(answer)
        seen = {partition: version for partition, version in found["seen"] if partition in self.names}
        return {**found, "seen": seen, "said": "".join(said)}
