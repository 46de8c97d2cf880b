"""TensorBoard's event files of a training as they may be published: the curves, and nothing else that lies in them.

As they are written, their names hold the machine's, and their texts all arguments of the trainer, with its folders.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]  # protobuf makes it on import
from tensorboardX.record_writer import RecordWriter

LENGTH, CHECKSUM = 8, 4  # bytes; around a record's length and around its data


def write_curves(events: Path, folder: Path, name: str) -> Path | None:
    """The one file in `folder` that holds every scalar of the event files in `events`; None where there are none.

    Of a step that was made twice, after a failure, the later value counts.
    """
    found: dict[tuple[int, str], Event] = {}
    for path in sorted(events.rglob("*tfevents*")):
        for event in read_events(path):
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    curve = Event(wall_time=event.wall_time, step=event.step)
                    curve.summary.value.add(tag=value.tag, simple_value=value.simple_value)
                    found[event.step, value.tag] = curve
    if not found:
        return None
    started = min(event.wall_time for event in found.values())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"events.out.tfevents.{started:.0f}.{name}"
    writer = RecordWriter(str(path))
    for event in (Event(wall_time=started, file_version="brain.Event:2"), *found.values()):
        writer.write(event.SerializeToString())
    writer.close()
    return path


def read_events(path: Path) -> Iterator[Event]:
    """The events of a file, up to where a process that died left off.

    Source: the record format of https://www.tensorflow.org/tutorials/load_data/tfrecord.
    """
    data, at = path.read_bytes(), 0
    while at + LENGTH + CHECKSUM <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        start = at + LENGTH + CHECKSUM
        at = start + length + CHECKSUM
        if at <= len(data):
            yield Event.FromString(data[start : start + length])
