"""docker/k8s: what kustomize makes of it is valid, locked down, and of one mind with the service."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.metrics import Metrics
from service.server import GRACE_SECONDS

FOLDER = Path(__file__).parents[2] / "docker" / "k8s"
VERSION = "1.32"
both = pytest.mark.parametrize("host", ["cpu", "gpu"])


@cache
def objects(host: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Kind and name to the object, as it reaches the cluster."""
    tools = {"kustomize": ["kustomize", "build"], "kubectl": ["kubectl", "kustomize"]}
    command = next((command for program, command in tools.items() if shutil.which(program)), None)
    if command is None:
        pytest.skip("neither kustomize nor kubectl is installed")
    made = subprocess.run([*command, str(FOLDER / host)], capture_output=True, text=True, check=True).stdout
    return {(item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(made)}


def pod(host: str) -> dict[str, Any]:
    """The service's pod."""
    return objects(host)["Deployment", "heatquery"]["spec"]["template"]["spec"]


def environment(host: str) -> dict[str, str]:
    """What the service is told."""
    return {item["name"]: item["value"] for item in pod(host)["containers"][0]["env"]}


@both
def test_every_object_follows_the_schema_of_kubernetes(host: str) -> None:
    for item in objects(host).values():
        kubernetes_validate.validate(item, VERSION, strict=True)


@both
def test_every_container_has_a_read_only_root_no_capabilities_and_a_limit_of_memory(host: str) -> None:
    for item in objects(host).values():
        if item["kind"] == "Deployment":
            spec = item["spec"]["template"]["spec"]
            (container,) = spec["containers"]
            assert spec["securityContext"]["runAsNonRoot"]
            assert not spec["automountServiceAccountToken"]
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]


def test_a_gpu_pod_asks_for_one_gpu_and_a_cpu_pod_for_none() -> None:
    gpu, cpu = (pod(host)["containers"][0]["resources"]["limits"] for host in ("gpu", "cpu"))
    assert gpu["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in cpu


@both
def test_probes_ask_the_paths_that_live_and_ready_have(host: str) -> None:
    container = pod(host)["containers"][0]
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}


@both
def test_a_stop_in_kubernetes_leaves_time_for_the_calls_in_flight(host: str) -> None:
    drain = float(environment(host)["HEATQUERY_DRAIN_SECONDS"])
    assert pod(host)["terminationGracePeriodSeconds"] > drain + GRACE_SECONDS


@both
def test_kubernetes_does_not_set_the_port_to_the_address_of_a_service(host: str) -> None:
    assert pod(host)["enableServiceLinks"] is False


@both
def test_keys_come_from_a_secret_where_the_service_reads_them(host: str) -> None:
    (mount,) = [mount for mount in pod(host)["containers"][0]["volumeMounts"] if mount["name"] == "keys"]
    (volume,) = [volume for volume in pod(host)["volumes"] if volume["name"] == "keys"]
    assert mount["mountPath"] == "/run/secrets"
    assert volume["secret"] == {"secretName": "heatquery-keys"}  # not optional: without keys no pod starts


@both
def test_pods_are_scaled_by_a_number_that_the_service_tells(host: str) -> None:
    (metric,) = objects(host)["HorizontalPodAutoscaler", "heatquery"]["spec"]["metrics"]
    assert f"# TYPE {metric['pods']['metric']['name']} gauge" in Metrics().render("")[0].decode()


@both
def test_who_may_call_is_found_by_the_label_that_pods_have(host: str) -> None:
    labels = objects(host)["Deployment", "heatquery"]["spec"]["template"]["metadata"]["labels"]
    for kind in ("Service", "NetworkPolicy", "PodDisruptionBudget"):
        spec = objects(host)[kind, "heatquery"]["spec"]
        selector = spec.get("podSelector", spec.get("selector"))
        wanted = selector.get("matchLabels", selector)
        assert wanted.items() <= labels.items()
