"""Sends a large file to S3 in parts, and goes on with the parts that an upload which was killed has left there."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

PART_BYTES = 16 << 20
MOST_PARTS = 10_000  # S3's own limit
AT_ONCE = 4


class Part(TypedDict):
    """A part that has arrived, by S3's names."""

    PartNumber: int
    ETag: str


class FoundPart(Part):
    """One that lies there from before."""

    Size: int


def wants_parts(files: Any, path: Path) -> bool:
    """Return whether the file is large, and the file system an S3."""
    return hasattr(files, "call_s3") and path.stat().st_size > 2 * PART_BYTES


def send_in_parts(files: Any, path: Path, name: str) -> None:
    """Send the file as the object `name` (bucket/key).

    An upload to this name that was begun and not ended is gone on with: whoever began it was sending this very content,
    as the names of objects are those of their content.

    Args:
        files: an `s3fs.S3FileSystem`.
    """
    bucket, key, _ = files.split_path(name)
    place = {"Bucket": bucket, "Key": key}
    place["UploadId"] = begun(files, bucket, key) or files.call_s3("create_multipart_upload", **place)["UploadId"]
    try:
        parts = send_missing(files, path, place)
        files.call_s3("complete_multipart_upload", **place, MultipartUpload={"Parts": parts})
    except FileNotFoundError:
        # Another machine that sends the same went on with the same upload, and has ended it.
        if files.info(name, refresh=True)["size"] != path.stat().st_size:
            raise


def send_missing(files: Any, path: Path, place: dict[str, str]) -> list[Part]:
    """Send the parts that have not arrived yet; return number and tag of each."""
    size = path.stat().st_size
    length = max(PART_BYTES, -(-size // MOST_PARTS))
    there = {part["PartNumber"]: part for part in parts_of(files, place)}

    def send(number: int) -> Part:
        start, found = (number - 1) * length, there.get(number)
        if found and found["Size"] == min(length, size - start):
            return {"PartNumber": number, "ETag": found["ETag"]}
        with path.open("rb") as file:
            file.seek(start)
            tag = files.call_s3("upload_part", **place, PartNumber=number, Body=file.read(length))["ETag"]
        return {"PartNumber": number, "ETag": tag}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(send, range(1, -(-size // length) + 1)))


def begun(files: Any, bucket: str, key: str) -> str | None:
    """Return the id of an upload to `key` that was begun and not ended; None without one, or the right to look."""
    try:
        found = files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key).get("Uploads", [])
    except PermissionError:
        return None
    return next((upload["UploadId"] for upload in found if upload["Key"] == key), None)


def parts_of(files: Any, place: dict[str, str]) -> Iterator[FoundPart]:
    """Yield the parts that have arrived."""
    after: dict[str, int] = {}
    while True:
        page = files.call_s3("list_parts", **place, **after)
        yield from page.get("Parts", [])
        if not page.get("IsTruncated"):
            return
        after = {"PartNumberMarker": page["NextPartNumberMarker"]}
