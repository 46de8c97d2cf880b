"""Objects below an address that fsspec knows, each there whole or not at all; what fails for a moment is waited for.

>>> objects = Objects("s3://bucket/artifacts")
>>> objects.write("lora_adapter/phi-2/current.json", b"{}")
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from finetuning.errors import FinetuningError, InfrastructureError, TransientError
from resources.store.multipart import send_in_parts, wants_parts

T = TypeVar("T")
# Seconds before each further try, four minutes in all: a training that is done is not to wait for a person.
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)
PASSING_STATUS = {408, 409, 429, 500, 502, 503, 504}
# By name, as they are those of botocore and aiohttp, which nobody has to have who keeps artifacts on a disk.
PASSING_ERRORS = {
    "ClientConnectionError",
    "ClientPayloadError",
    "ConnectionError",
    "HTTPClientError",
    "IncompleteRead",
    "TimeoutError",
}
PROBE = ".writable"
RIGHTS = (
    "For s3:// the credentials are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the profile that AWS_PROFILE names, or "
    "the machine's role, and AWS_ENDPOINT_URL is the server, where it is not Amazon's. They have to allow to list, "
    "read, write and delete objects there."
)


@dataclass(frozen=True)
class Objects:
    """The objects below `address`; their names are relative to it. `log` is told of every further try."""

    address: str
    log: Callable[[str], None] = logging.getLogger(__name__).warning
    pauses: tuple[float, ...] = PAUSES

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """Return the file system, and the path that it knows the address by.

        Raises:
            FinetuningError: no file system is known for such addresses, or it needs a package.
        """
        try:
            return fsspec.core.url_to_fs(self.address)
        except ImportError as error:
            raise FinetuningError(
                f"FINETUNING_ARTIFACTS: {self.address} needs a package that is not installed ({error}). For s3:// it "
                "comes with .venv/bin/pip install -c constraints.txt -e '.[s3]'."
            ) from None
        except ValueError as error:
            raise FinetuningError(
                f"FINETUNING_ARTIFACTS: {self.address}: {error}. Write a folder, or an address such as s3://bucket/name."
            ) from None

    def _path(self, name: str) -> str:
        return f"{self._place[1]}/{name}".rstrip("/")

    def read(self, name: str) -> bytes | None:
        """Return what the object holds; None where there is none."""
        try:
            return self._ask(lambda files: files.cat_file(self._path(name)))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Let the object hold `content`."""
        self._ask(lambda files: files.pipe_file(self._path(name), content))

    def create(self, name: str, content: bytes) -> bool:
        """Write an object that is not there yet; return whether it was not. One that is there is left as it is."""
        try:
            self._ask(lambda files: files.pipe_file(self._path(name), content, mode="create"))
        except FileExistsError:
            return False
        return True

    def require_writable(self) -> None:
        """Check that objects can be written here.

        Raises:
            FinetuningError: they cannot; it says why.
        """
        self.write(PROBE, b"")

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the bytes by name, relative to `folder`, of all objects below it."""
        top = self._path(folder)

        def find(files: Any) -> Mapping[str, Mapping[str, Any]]:
            files.invalidate_cache()
            return files.find(top, detail=True)

        return {path[len(top) + 1 :]: found["size"] for path, found in self._ask(find).items()}

    def modified(self, name: str) -> datetime | None:
        """Return when the object was written; None where there is none."""
        try:
            return self._ask(lambda files: files.modified(self._path(name)))
        except FileNotFoundError:
            return None

    def send(self, path: Path, name: str) -> None:
        """Send the file as an object. Large ones go to S3 in parts, of which those that arrived are kept."""

        def send(files: Any) -> None:
            if wants_parts(files, path):
                send_in_parts(files, path, self._path(name))
            else:
                files.put_file(str(path), self._path(name))

        try:
            self._ask(send)
        except FileNotFoundError as error:
            raise TransientError(
                f"{self.address}/{name}: its upload was ended from elsewhere. Run it again."
            ) from error

    def fetch(self, name: str, path: Path) -> bool:
        """Copy the object to `path`; return whether there is one."""
        try:
            self._ask(lambda files: files.get_file(self._path(name), str(path)))
        except FileNotFoundError:
            return False
        return True

    def remove(self, *names: str) -> None:
        """Remove the objects, in this order."""
        for name in names:
            with suppress(FileNotFoundError):
                self._ask(lambda files, name=name: files.rm_file(self._path(name)))

    def _ask(self, act: Callable[[Any], T]) -> T:
        """Return what `act` returns, tried again while what fails may be over a moment later.

        Raises:
            FileNotFoundError, FileExistsError: the object, not the bucket, is missing, or is there already.
            TransientError: it went on failing.
            FinetuningError: what a further try would meet as well.
        """
        for pause in (*self.pauses, None):
            try:
                return act(self._place[0])
            except Exception as error:
                if isinstance(error, FinetuningError) or is_answer(error):
                    raise
                if pause is None or not is_passing(error):
                    raise explained(self.address, error) from error
                self.log(f"{self.address}: {said_by(error)}; trying again in {pause:g} s")
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")


def response_to(error: BaseException) -> Mapping[str, Any]:
    """Return what the server answered, as botocore has it; empty where it did not, or is not an S3."""
    return getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}


def code_of(error: BaseException) -> str:
    """Return the server's own name of what is wrong, such as `NoSuchBucket`."""
    return response_to(error).get("Error", {}).get("Code", "")


def is_answer(error: Exception) -> bool:
    """Return whether this is about one object, which is missing or is there."""
    return isinstance(error, FileExistsError | FileNotFoundError) and code_of(error) != "NoSuchBucket"


def is_passing(error: Exception) -> bool:
    """Return whether it may be over a moment later."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = response_to(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status in PASSING_STATUS or (bool(kinds & PASSING_ERRORS) and "SSLError" not in kinds)


def said_by(error: BaseException) -> str:
    """Return the error's kind and words on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(": ")


def explained(address: str, error: Exception) -> Exception:
    """Return the error as a user is meant to read it; what nobody foresaw stays as it is."""
    said = said_by(error)
    if is_passing(error):
        return TransientError(
            f"{address} cannot be reached or fails ({said}). Nothing that was made is lost: it lies on this machine, "
            "and the next run sends what is missing. Run it again later."
        )
    if code_of(error) == "NoSuchBucket":
        return InfrastructureError(f"{address}: there is no such bucket. Make it, or mend FINETUNING_ARTIFACTS.")
    if isinstance(error, PermissionError) or "Credential" in type(error).__name__:
        return InfrastructureError(f"{address}: refused ({said}). {RIGHTS}")
    if isinstance(error, OSError | ValueError) or "BotoCoreError" in {kind.__name__ for kind in type(error).__mro__}:
        return InfrastructureError(f"{address}: {said}. Check the address, the credentials and the disk. {RIGHTS}")
    return error
