"""What starts the steps of a run, where it cannot start any."""

import sys
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from finetuning.errors import InfrastructureError
from pipelines.executor import create_on_cluster


@pytest.mark.parametrize("package", ["ray", "dagster_ray"])
def test_a_cluster_without_its_packages_is_said(monkeypatch, package):
    for name in [name for name in sys.modules if name.split(".")[0] == package or name == "pipelines.ray_executor"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    context: Any = SimpleNamespace(instance=dg.DagsterInstance.ephemeral())
    with pytest.raises(InfrastructureError) as told:
        create_on_cluster(context)
    assert str(told.value).startswith(f"FINETUNING_EXECUTOR: ray needs the package {package}")
    assert "pip install -c constraints.txt -e '.[cluster]'" in str(told.value)
