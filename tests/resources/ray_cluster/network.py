"""A cable between two nodes, which a test may pull and plug in again."""

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass
class Network:
    """Two ends of a cable, of which the second is in a network of its own."""

    name: str
    addresses: tuple[str, str] = ("10.77.0.1", "10.77.0.2")

    @property
    def links(self):
        return f"{self.name}a", f"{self.name}b"

    @property
    def within(self):
        return ("ip", "netns", "exec", self.name)

    def cut(self):
        ip("-n", self.name, "link", "set", self.links[1], "down")

    def mend(self):
        ip("-n", self.name, "link", "set", self.links[1], "up")


def ip(*words):
    subprocess.run(["ip", *words], check=True)


@contextmanager
def other_network():
    """A network that is gone after the block."""
    network = Network(f"ray{os.getpid()}")
    if not shutil.which("ip") or subprocess.run(["ip", "netns", "add", network.name], check=False).returncode:
        pytest.skip("needs to make a network")
    try:
        (ours, theirs), (here, there) = network.links, network.addresses
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", network.name)
        ip("addr", "add", f"{here}/24", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", network.name, "addr", "add", f"{there}/24", "dev", theirs)
        for link in ("lo", theirs):
            ip("-n", network.name, "link", "set", link, "up")
        yield network
    finally:
        ip("netns", "del", network.name)
