"""What a page that others read calls things: no folder of this machine, and no word of a row.

>>> public_path("/home/me/data/train.jsonl"), public_path("s3://bucket/train.jsonl")
('train.jsonl', 's3://bucket/train.jsonl')
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any


def public_path(address: str) -> str:
    """The name alone of a local file or folder; another address as it is, without what is secret in it."""
    links = []
    for link in without_secrets(address).split("::"):
        protocol, slashes, rest = link.partition("://")
        elsewhere = slashes and protocol not in ("file", "local") and not rest.startswith(("/", "~"))
        links.append(link if elsewhere else PurePosixPath(link).name)
    return "::".join(links)


def public_source(record: Mapping[str, Any]) -> str:
    """A data set by its record's `source` and `revision`: of files, what `public_path` makes of each."""
    if not record["revision"].startswith("sha256:"):
        return record["source"]
    return ", ".join(map(public_path, record["source"].split(", ")))


def public_base(resolved: Mapping[str, Any]) -> str:
    """Where a base model came from: a repo of the Hub, a package, or the name of a local folder."""
    return resolved["source"] if resolved["on_hub"] else PurePosixPath(resolved["source"]).name or "a local folder"


def public_drops(dropped: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`reason`, `rows` and an `example`'s place for each reason, most rows first.

    Reasons that quote a row are one reason, without what they quote.
    """
    found: dict[str, dict[str, Any]] = {}
    for record in dropped:
        reason = re.sub(r"""(['"]).*\1""", "…", record["reason"].partition(":")[0])
        known = found.setdefault(reason, {"reason": reason, "rows": 0, "example": public_path(record["example"])})
        known["rows"] += record["rows"]
    return sorted(found.values(), key=lambda record: -record["rows"])


def without_secrets(address: str) -> str:
    """The address without a password in it and without the query, which may be a signature."""
    links = []
    for link in address.split("::"):
        protocol, slashes, rest = link.partition("://")
        host, slash, path = rest.partition("/")
        is_web = protocol in ("http", "https")
        if is_web and ":" not in host.partition("?")[0]:  # or what follows the ? may be a password's
            host, slash, path = rest.partition("?")[0].partition("/")
        port = host.rpartition("@")[2].partition(":")[2].partition("?")[0]
        if port and not port.isdecimal() and "@" in path:  # no port, but a password with a slash in it
            host, slash, path = rest.rpartition("@")[2].partition("/")
        shown = f"{host.rpartition('@')[2]}{slash}{path}"
        links.append(f"{protocol}{slashes}{shown.partition('?')[0] if is_web else shown}")
    return "::".join(links)
