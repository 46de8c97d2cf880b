"""Tasks of benchmarks, written once for each module that asks for them."""

import pytest

from tests.benchmark_folder import write_tasks


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))
