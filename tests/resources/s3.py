"""A real S3 server on loopback for tests, and artifacts on it; each cache is what one machine has."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, cast

import fsspec

from resources.store import multipart
from resources.store.artifact import Origin, fingerprint_of
from resources.store.object_store import ObjectStore, object_store
from resources.store.plan import Plan

BUCKET = "finetuning-test"
SECRET = "not-to-be-seen-anywhere"
SMALL = 2500  # bytes of a part, so that the largest file of `write_files` has four
# Nothing of the machine's own: neither its credentials nor its role; one try a request, as our own tries are tested.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",
}


@dataclass
class S3Server:
    """Keeps what it holds while it is stopped."""

    port: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        os.environ["S3_UPLOAD_PART_MIN_SIZE"] = "256"  # 5 MiB otherwise: files that take seconds
        from moto.moto_server.threaded_moto_server import ThreadedMotoServer

        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self.server.start()
        web = cast(Any, self.server._server)
        web.app = one_at_a_time(web.app)
        self.port = self.server.get_host_and_port()[1]
        self.environment = {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def stop(self) -> None:
        self.server.stop()


def one_at_a_time(app: Callable) -> Callable:
    """The application, asked for one thing at a time: of two that create an object at once it would let both win."""
    lock = Lock()

    def ask(environ: dict, start_response: Callable) -> list[bytes]:
        with lock:
            return list(app(environ, start_response))

    return ask


@cache
def client():
    """Amazon's own client of the server that runs."""
    import boto3

    return boto3.client("s3")


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server with one bucket, to which the environment points."""
    before = dict(os.environ)
    server = S3Server()
    server.start()
    os.environ.update(server.environment)
    forget_clients()
    client().create_bucket(Bucket=BUCKET)
    try:
        yield server
    finally:
        server.stop()
        forget_clients()
        os.environ.clear()
        os.environ.update(before)


def forget_clients() -> None:
    """Let nobody in this process ask a server again that was here before."""
    client.cache_clear()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@dataclass(frozen=True)
class Machine:
    """A cache, and the address that it belongs to."""

    address: str
    cache: Path
    said: list[str] = field(default_factory=list)
    pauses: tuple[float, ...] = ()
    gigabytes: str = "1"

    @property
    def store(self) -> ObjectStore:
        store = object_store(self.address, str(self.cache), self.gigabytes, self.said.append)
        return replace(store, objects=replace(store.objects, pauses=self.pauses))

    def plan(self, asset: str = "thing", **changes) -> Plan:
        empty = {"inputs": {}, "sections": {}, "resolved": {}}
        origin = Origin(**{"asset": asset, "partition": "tiny", **empty, **changes})
        return Plan(self.store, origin, fingerprint_of(origin.as_json()), self.said.append)

    def uploads(self) -> list[str]:
        return [line for line in self.said if line.startswith("uploading")]


def write_files(folder: Path) -> dict:
    """Three files, one of them in a folder and one that is sent in parts where these are small."""
    (folder / "data.txt").write_text("hello")
    (folder / "more").mkdir()
    (folder / "more" / "empty").touch()
    (folder / "weights.bin").write_bytes(bytes(range(250)) * 40)
    return {"rows": 1}


def write_own(folder: Path) -> dict:
    """Files that no two processes make alike, as a training on other hardware does."""
    time.sleep(0.2)
    for name in ("a.bin", "b.bin", "c.bin"):
        (folder / name).write_bytes(os.urandom(64))
    return {"process": os.getpid()}


def must_not_write(folder: Path) -> dict:
    raise AssertionError("a complete artifact was written again")


def start(act: Callable[..., None], *arguments) -> multiprocessing.Process:
    """A process that does this, which is there at once: it is forked from one that has imported all there is."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.resources.s3", "s3fs"])
    process = context.Process(target=act, args=(dict(os.environ), *arguments))
    process.start()
    return process


def obtain_when(environment: dict[str, str], machine: Machine, ready: Path, go: Path) -> None:
    """Makes an artifact of its own once `go` is there, and writes down whose it ended with."""
    os.environ.update(environment)
    machine.store.objects.read("connected")
    ready.touch()
    while not go.exists():
        time.sleep(0.01)
    artifact = machine.plan().obtain(write_own)
    artifact.verify()
    ready.write_text(str(artifact.summary["process"]))


def obtain_until(environment: dict[str, str], machine: Machine, moment: int) -> None:
    """Is killed once the server has done as many changes, or comes to its end before."""
    import aiobotocore.client

    os.environ.update(environment)
    multipart.PART_BYTES = SMALL
    asked, ask = 0, aiobotocore.client.AioBaseClient._make_api_call

    async def counted(self, operation, arguments):
        nonlocal asked
        try:
            return await ask(self, operation, arguments)
        finally:
            asked += not operation.startswith(("Get", "Head", "List"))
            if asked == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    aiobotocore.client.AioBaseClient._make_api_call = counted
    machine.plan().obtain(write_files)
