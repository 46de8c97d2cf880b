"""A file of a commit to the hub, and the status of what the hub refuses."""

import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError


def add(path: str, content: str) -> CommitOperationAdd:
    return CommitOperationAdd(path, content.encode())


def status_of(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code
