"""The files in deploy/ against the schema of compose files, each other, and the tree."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.resources import files

import jsonschema
import pytest
import yaml

from tests.deploy.deployment import COMPOSE, DEPLOY, ROOT, VARIABLE, image_environment

SCHEMA = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_a_compose_file_follows_the_specification(name):
    jsonschema.validate(yaml.safe_load((DEPLOY / name).read_text()), SCHEMA)


def test_the_variables_of_compose_are_those_of_the_example_and_the_example_holds_no_value():
    used = {found["name"] for found in VARIABLE.finditer((DEPLOY / "compose.yaml").read_text()) if found["name"]}
    lines = [line for line in (DEPLOY / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    assert used == {line.removesuffix("=") for line in lines}
    assert all(line.endswith("=") for line in lines)


def test_the_files_with_secrets_are_kept_out_of_commits_and_images():
    ignored = subprocess.run(["git", "check-ignore", "deploy/.env"], cwd=ROOT, capture_output=True)
    assert ignored.returncode == 0
    assert "**/.env" in (ROOT / ".dockerignore").read_text().splitlines()


def test_no_port_is_published_beyond_this_machine_and_the_database_is_published_nowhere():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)
    assert "ports" not in COMPOSE["services"]["postgres"]


def test_the_ui_of_one_person_listens_to_this_machine_alone():
    assert "dagster dev -h 127.0.0.1 " in (ROOT / "Makefile").read_text()


def test_every_service_has_a_health_check_and_comes_back_after_a_crash():
    for name, service in COMPOSE["services"].items():
        assert {"test", "interval", "timeout", "retries"} <= service["healthcheck"].keys(), name
        assert service["restart"] == "unless-stopped", name


def test_every_folder_that_a_container_writes_to_is_a_volume_that_its_user_owns():
    written = {value for value in image_environment().values() if value.startswith(("/data", "/logs"))}
    assert {"/" + value.split("/")[1] for value in written} == {"/data", "/logs"}
    assert "chown finetuning /data /logs .dagster" in DOCKERFILE
    assert image_environment()["DAGSTER_HOME"].endswith("/deploy") and "COPY --chown=finetuning deploy " in DOCKERFILE
    assert {"data:/data", "logs:/logs"} <= set(COMPOSE["services"]["code"]["volumes"])


def test_what_the_dockerfile_copies_is_tracked_and_has_every_package():
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    sources = {source for line in copied for source in line if not source.startswith("--")}
    for source in sources:
        tracked = subprocess.run(["git", "ls-files", "--error-unmatch", source], cwd=ROOT, capture_output=True)
        assert tracked.returncode == 0, source
    packages = {pattern.rstrip("*") for pattern in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages | {"recipes", "deploy", "constraints.txt", "pyproject.toml"} <= sources


def test_the_image_is_of_a_python_that_the_project_supports_and_does_not_run_as_root():
    base = re.search(r"^FROM python:(3\.\d+)-slim$", DOCKERFILE, re.MULTILINE)
    assert base and PYPROJECT["project"]["requires-python"] == f">={base[1]}"
    assert re.findall(r"^USER (\w+)$", DOCKERFILE, re.MULTILINE) == ["finetuning"]
    assert DOCKERFILE.rstrip().endswith("USER finetuning")


def test_recipes_that_are_shipped_are_not_mounted_a_second_time():
    (mounted,) = [volume for volume in COMPOSE["services"]["code"]["volumes"] if volume.endswith(":/recipes:ro")]
    folder = re.sub(r"\$\{RECIPES:-([^}]*)\}.*", r"\1", mounted)
    assert (DEPLOY / folder).resolve() != ROOT / "recipes"


def test_the_extras_that_the_image_and_make_install_exist():
    named = re.findall(r"(?:-e '\.\[|^ARG EXTRAS=)([\w,]+)", DOCKERFILE + (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(named) == 2 and '-e ".[$EXTRAS]"' in DOCKERFILE
    assert {extra for extras in named for extra in extras.split(",")} <= PYPROJECT["project"][
        "optional-dependencies"
    ].keys()


LOADED = r"""
import sys
import pipelines.definitions, pipelines.code_location
from finetuning.recipe.loading import find
for name, module in sys.modules.items():
    if name.split(".")[0] in {"assets", "finetuning", "pipelines", "resources"}:
        print(module.__file__)
print(*find().values(), sep="\n")
"""


def test_the_files_that_are_copied_are_enough_to_load_the_code_location_and_its_recipes(tmp_path):
    for source in ["finetuning", "resources", "assets", "pipelines", "recipes"]:
        assert f"\nCOPY {source} {source}\n" in DOCKERFILE
        shutil.copytree(ROOT / source, tmp_path / source)
    loaded = subprocess.run([sys.executable, "-c", LOADED], cwd=tmp_path, capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    paths = loaded.stdout.split()
    assert len(paths) > 20 and not [path for path in paths if not path.startswith(str(tmp_path))]
