"""The example for KubeRay against the fields of its reference (version 1.6), the image, and the pinned Ray."""

import re

import yaml

from tests.deploy.deployment import DEPLOY, ROOT, image_environment

TEXT = (ROOT / "docs" / "examples" / "kuberay.yaml").read_text()
DOCUMENTS = {document["kind"]: document for document in yaml.safe_load_all(TEXT)}
CLUSTER = DOCUMENTS["RayCluster"]["spec"]
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]
CODE = DOCUMENTS["Deployment"]["spec"]["template"]
FIELDS = {
    "cluster": {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "authOptions"}
    | {"headGroupSpec", "workerGroupSpecs"},
    "group": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
    "auth": {"mode", "secretName"},
    "autoscaler": {"idleTimeoutSeconds"},
    "pod": {"securityContext", "terminationGracePeriodSeconds", "containers", "volumes"},
    "container": {"name", "image", "command", "args", "env", "envFrom", "ports", "resources", "volumeMounts"}
    | {"readinessProbe", "livenessProbe"},
}


def containers():
    return [container for group in [*GROUPS, CODE] for container in pod_of(group)["containers"]]


def pod_of(group):
    return group.get("template", group)["spec"]


def test_it_has_no_field_that_the_reference_does_not_have():
    assert CLUSTER.keys() <= FIELDS["cluster"]
    assert CLUSTER["authOptions"].keys() <= FIELDS["auth"] and CLUSTER["authOptions"]["mode"] == "token"
    assert CLUSTER["autoscalerOptions"].keys() <= FIELDS["autoscaler"]
    for group in GROUPS:
        assert group.keys() <= FIELDS["group"] and {"rayStartParams", "template"} <= group.keys()
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    for group in [*GROUPS, CODE]:
        assert pod_of(group).keys() <= FIELDS["pod"]
    for container in containers():
        assert container.keys() <= FIELDS["container"]


def test_its_ray_is_the_one_that_is_pinned_and_its_image_has_it():
    assert f"ray=={CLUSTER['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    extras = re.search(r"--build-arg EXTRAS=([\w,]+)", TEXT)
    assert extras and {"cluster", "postgres", "s3"} <= set(extras[1].split(","))
    assert "ARG EXTRAS=" in (DEPLOY / "Dockerfile").read_text()
    assert len({container["image"] for container in containers()}) == 1


def test_every_node_is_told_the_same_and_its_secrets_come_from_secrets():
    told = {str(container["envFrom"]) for container in containers()}
    assert len(told) == 1 and "secretRef" in told.pop()
    settings = DOCUMENTS["ConfigMap"]["data"]
    assert all(isinstance(value, str) for value in settings.values())
    known = (ROOT / "README.md").read_text() + (DEPLOY / ".env.example").read_text()
    unknown = [name for name in settings if name not in known and not name.startswith("CODE_LOCATION_")]
    assert set(unknown) <= {"FINETUNING_LAUNCHER"}
    assert not [name for name in settings if re.search("TOKEN|PASSWORD|SECRET|WEBHOOK", name)]


def test_every_folder_that_the_image_writes_to_is_a_volume_of_each_pod():
    written = {"/" + value.split("/")[1] for value in image_environment().values() if re.match("/(data|logs)", value)}
    for group in [*GROUPS, CODE]:
        volumes = {volume["name"] for volume in pod_of(group)["volumes"]}
        for container in pod_of(group)["containers"]:
            mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert {*written, "/recipes"} <= mounted.keys() and set(mounted.values()) <= volumes


def test_the_code_location_is_started_as_compose_starts_it_and_finds_the_head():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["code"]["command"]
    (container,) = pod_of(CODE)["containers"]
    assert [*container["command"], *container["args"]] == compose
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    name = DOCUMENTS["RayCluster"]["metadata"]["name"]
    assert environment["RAY_ADDRESS"] == f"http://{name}-head-svc:8265" and environment["RAY_AUTH_MODE"] == "token"
    assert DOCUMENTS["ConfigMap"]["data"]["CODE_LOCATION_HOST"] == DOCUMENTS["Service"]["metadata"]["name"]
