"""A hub in a process of its own, for each module that asks for one."""

from collections.abc import Iterator

import pytest

from tests.resources.serving import Server, serving


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hub"), "--port", "0", "--faults") as server:
        yield server
