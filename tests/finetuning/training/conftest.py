"""A tiny base model, made once for each module that asks for it."""

import pytest

from tests.tiny_models import save_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("tiny"))
