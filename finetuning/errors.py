"""The exceptions that a person who uses the pipeline is meant to read, and what kind of trouble each one is.

>>> raise InfrastructureError("/artifacts: the disk is full. Make room.")
"""

# The key under which a failed step tells the kind.
KIND = "kind"
INPUT, GATE, INFRASTRUCTURE, FAULT = "input", "gate", "infrastructure", "fault"


class FinetuningError(Exception):
    """A mistake that the user can mend: of the recipe or its data, unless a subclass says otherwise.

    Its text says what is wrong (with the value), where, what exists, and what to do. Anything else that is raised is a
    fault of this project or of a library, and keeps its traceback.
    """

    kind = INPUT


class GateError(FinetuningError):
    """A model that nothing was published of, since no passed verdict is about it."""

    kind = GATE


class InfrastructureError(FinetuningError):
    """What the recipe is not to blame for: network, hub, token, memory, disk, a process that was killed."""

    kind = INFRASTRUCTURE


class TransientError(InfrastructureError):
    """What may be over a moment later, such as a network that is out: the same step may be tried again."""


class UnknownRepoError(FinetuningError):
    """A name that is no repo of the hub, or of none that this account may see."""


class CrashError(FinetuningError):
    """A process of this project that ended with an error that nobody foresaw, which its own log has."""

    kind = FAULT


def of_kind(kind: str, text: str) -> FinetuningError:
    """The error of that kind, as another process told it."""
    known = {known.kind: known for known in (FinetuningError, GateError, InfrastructureError, CrashError)}
    return known[kind](text)
