"""An S3 server for each module that asks for one, and two machines that keep their artifacts on it."""

import uuid

import pytest

from tests.resources.s3 import BUCKET, Machine, s3_server


@pytest.fixture(scope="module")
def server():
    with s3_server() as server:
        yield server


@pytest.fixture
def address(server):
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def here(address, tmp_path):
    return Machine(address, tmp_path / "here")


@pytest.fixture
def there(address, tmp_path):
    """Another machine."""
    return Machine(address, tmp_path / "there")
