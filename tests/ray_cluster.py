"""A Ray cluster on loopback, of real nodes: each is a `ray start` with one core, and all that it starts.

>>> with ray_cluster() as cluster:
...     cluster.nodes[1].kill()
...     cluster.join()
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parent.parent
OBJECT_STORE = 100_000_000  # bytes
# Of all nodes, and of whoever speaks to them.
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    # A node that was cut off is found out within ten seconds, which a busy machine has to be granted.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "10",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


@dataclass
class Node:
    """One `ray start`."""

    process: subprocess.Popen[bytes]
    known: list[psutil.Process] = field(default_factory=list)

    def members(self) -> list[psutil.Process]:
        """Its processes that live, its workers among them."""
        try:
            top = psutil.Process(self.process.pid)
            self.known = list({*self.known, top, *top.children(recursive=True)})
        except psutil.NoSuchProcess:
            pass
        return [process for process in self.known if process.is_running()]

    def kill(self) -> None:
        """All of its processes are dead, as when a machine loses its power."""
        for _ in range(3):  # a worker may be starting another one this moment
            for process in self.members():
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
        psutil.wait_procs(self.members(), timeout=20)
        self.process.wait(20)


@dataclass
class Cluster:
    """Its nodes, of which the first is the head."""

    folder: Path
    port: int
    head: str
    """The address of the first node."""
    nodes: list[Node] = field(default_factory=list)
    dashboard: int | None = None

    @property
    def address(self) -> str:
        """What `RAY_ADDRESS` is to say."""
        return f"{self.head}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What whoever speaks to the cluster needs in its environment."""
        return {**ENVIRONMENT, "RAY_ADDRESS": self.address}

    def join(
        self,
        environment: Mapping[str, str] | None = None,
        cpus: int = 1,
        address: str | None = None,
        within: tuple[str, ...] = (),
    ) -> Node:
        """Another node, which has joined; `within` is a command that starts it elsewhere, such as `ip netns exec`."""
        alive = sum(node.process.poll() is None for node in self.nodes)
        options = [f"--address={self.address}", f"--node-ip-address={address or loopback(len(self.nodes) + 1)}"]
        node = self._start([*within], options, environment or {}, cpus)
        self._until(alive + 1, node)
        return node

    def start_head(self, environment: Mapping[str, str] | None = None, cpus: int = 1, dashboard: bool = False) -> None:
        """The first node is there. With a dashboard there are Ray's job API, and its state API."""
        options = ["--head", f"--node-ip-address={self.head}", f"--port={self.port}", f"--temp-dir={self.folder}"]
        options += [f"--ray-client-server-port={free_port()}"]
        if dashboard:
            self.dashboard = free_port()
            options += ["--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard}"]
        options += [f"--include-dashboard={str(dashboard).lower()}"]
        self._until(1, self._start([], options, environment or {}, cpus))

    def _start(self, within: list[str], options: list[str], environment: Mapping[str, str], cpus: int) -> Node:
        log = (self.folder / f"node-{len(self.nodes)}.log").open("ab")
        command = [
            *(*within, str(Path(sys.executable).with_name("ray")), "start", "--block"),
            *(f"--num-cpus={cpus}", f"--object-store-memory={OBJECT_STORE}"),
            *(f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}"),
            *options,
        ]
        own = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        process = subprocess.Popen(
            command,
            env={**own, **ENVIRONMENT, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        node = Node(process)
        self.nodes.append(node)
        return node

    def _until(self, count: int, node: Node) -> None:
        """Return once so many nodes are alive."""
        from resources.ray_internals import nodes_alive

        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and node.process.poll() is None:
            try:
                if nodes_alive(self.address) >= count:
                    node.members()
                    return
            except Exception:  # whatever it says while it is not there yet
                time.sleep(0.1)
            time.sleep(0.1)
        words = "".join(path.read_text() for path in sorted(self.folder.glob("node-*.log")))
        raise AssertionError(f"the node did not come up: {words[-3000:]}")

    def stop(self) -> None:
        """No process of the cluster is left."""
        for node in reversed(self.nodes):
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def loopback(number: int) -> str:
    """The address of a node, counted from 1: one of its own, and not 127.0.0.1, for which Ray takes the outer one."""
    return f"127.0.0.{number + 1}"


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def ray_cluster(
    nodes: int = 2,
    environments: tuple[Mapping[str, str], ...] = (),
    dashboard: bool = False,
    head: str | None = None,
) -> Iterator[Cluster]:
    """A cluster of so many nodes, to which the environment points; each may have an environment of its own."""
    # Sockets have names of 107 bytes at most, which a folder of pytest's would not leave room for.
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp")), free_port(), head or loopback(1))
    before = dict(os.environ)
    os.environ.update(cluster.environment)
    try:
        first, *others = [*environments, *[{}] * nodes][:nodes]
        cluster.start_head(first, dashboard=dashboard)
        for environment in others:
            cluster.join(environment)
        yield cluster
    finally:
        cluster.stop()
        os.environ.clear()
        os.environ.update(before)
