"""The two file formats of Xet uploads (spec: huggingface.co/docs/xet): xorbs hold chunks, shards say which make a file.

A file of a shard is a list of terms, for example `Term("d41d…", 0, 12)`: chunks 0 to 11 of the xorb `d41d…`.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAGIC, HEADER, RECORD = b"HFRepoMetaData", 48, 48
HAS_VERIFICATION, HAS_METADATA, LAST = 1 << 31, 1 << 30, b"\xff" * 32
STORED, LZ4, GROUPED_LZ4 = 0, 1, 2


class Term(NamedTuple):
    """Chunks `first` to `end` (not included) of a xorb."""

    xorb: str
    first: int
    end: int


def shard_files(shard: bytes) -> list[list[Term]]:
    """The terms of each file in a shard.

    Raises:
        ValueError: it is not a shard.
        struct.error: it ends too early.
    """
    if not shard.startswith(MAGIC):
        raise ValueError("not a shard")
    position, files = HEADER, []
    while shard[position : position + 32] != LAST:
        flags, count = struct.unpack_from("<II", shard, position + 32)
        records = [position + RECORD * number for number in range(1, count + 1)]
        files.append([_term(shard, record) for record in records])
        extra = count * bool(flags & HAS_VERIFICATION) + bool(flags & HAS_METADATA)
        position += RECORD * (1 + count + extra)
    return files


def chunks(xorb: Path, first: int, end: int) -> Iterator[bytes]:
    """The chunks `first` to `end` (not included) of a xorb, unpacked.

    Raises:
        ValueError: it has fewer chunks, or one cannot be unpacked.
    """
    with xorb.open("rb") as file:
        for number in range(end):
            header = file.read(8)
            if len(header) < 8 or header[0] != 0:
                raise ValueError(f"xorb {xorb.name} has {number} chunks, not {end}")
            packed, scheme, plain = int.from_bytes(header[1:4], "little"), header[4], header[5:8]
            if number < first:
                file.seek(packed, 1)
            else:
                yield _unpacked(file.read(packed), scheme, int.from_bytes(plain, "little"))


def _term(shard: bytes, position: int) -> Term:
    first, end = struct.unpack_from("<II", shard, position + 40)
    # A hash is written as four little-endian numbers of 64 bits.
    name = "".join(f"{part:016x}" for part in struct.unpack_from("<4Q", shard, position))
    return Term(name, first, end)


def _unpacked(packed: bytes, scheme: int, size: int) -> bytes:
    if scheme == STORED:
        return packed
    if scheme not in (LZ4, GROUPED_LZ4):
        raise ValueError(f"unknown compression {scheme}")
    # Imported here because it is heavy, and needed only where the Xet client compressed something.
    import pyarrow

    plain = pyarrow.decompress(packed, decompressed_size=size, codec="lz4", asbytes=True)
    return _ungrouped(plain) if scheme == GROUPED_LZ4 else plain


def _ungrouped(grouped: bytes) -> bytes:
    """Bytes in their own order again: they came sorted by their place (0 to 3) in each word of four."""
    plain, start = bytearray(len(grouped)), 0
    for place in range(4):
        count = len(range(place, len(grouped), 4))
        plain[place::4] = grouped[start : start + count]
        start += count
    return bytes(plain)
