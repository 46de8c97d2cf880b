"""One fake GPU for all tests of a process: to start one takes as long as many traces."""

import pytest

from tests.fake_gpu.traces import fake_gpu


@pytest.fixture(scope="session")
def h100():
    """A function that traces on an H100."""
    with fake_gpu("H100") as traced:
        yield traced
