"""A tiny assistant that is served for as long as a module's tests run."""

import pytest

from tests.assistants import served, tiny_source


@pytest.fixture(scope="module")
def assistant(tmp_path_factory):
    """What is served: its `url`, and the `assistant` itself."""
    with served(tiny_source(tmp_path_factory.mktemp("tiny"))) as found:
        yield found
