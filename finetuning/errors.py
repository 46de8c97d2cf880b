"""The one kind of exception that a person who uses the pipeline is meant to read."""


class FinetuningError(Exception):
    """A mistake that the user can mend.

    Its text says what is wrong (with the value), where, what exists, and what to do. Anything else that is raised is a
    fault of this project or of a library, and keeps its traceback.
    """


class PassingError(FinetuningError):
    """What may be over a moment later, such as a network that is out: the same step may be tried again."""
