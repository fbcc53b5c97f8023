"""Kubernetes: every overlay builds, fits the schemas, and its parts refer to each other."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from loradeck_serve.config import ServerConfig, load_config
from loradeck_serve.grpc.doors import LIVENESS
from loradeck_train.recipe.files import load_recipe
from tests.deploy.tools import DEPLOY, accepts, document, documents, pinned, program, run

FOLDER = DEPLOY / "kubernetes"
OVERLAYS = sorted(path.parent for path in FOLDER.rglob("kustomization.yaml") if "namespace:" in path.read_text())
RESOURCES = sorted(
    path
    for path in FOLDER.rglob("*.yaml")
    if all({"apiVersion", "kind"} <= item.keys() for item in documents(path))
    and document(path)["kind"] not in ("Kustomization", "Component", "PodMonitor")
    and path.name != "resources.yaml"
)
"""What has a schema: neither kustomize's own files, nor patches, nor resources of the Prometheus Operator."""


@cache
def built(overlay: Path) -> list[dict[str, Any]]:
    """What kustomize makes of an overlay. Skips without kubectl."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: kustomize comes with it")
    done = subprocess.run(
        ["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(overlay: Path, kind: str) -> dict[str, Any]:
    (found,) = [item for item in built(overlay) if item["kind"] == kind]
    return found


def workload(overlay: Path) -> dict[str, Any]:
    """The template of the overlay's pods."""
    (found,) = [item for item in built(overlay) if item["kind"] in ("Deployment", "Job")]
    template = found["spec"]["template"]
    assert isinstance(template, dict)
    return template


def settings() -> ServerConfig:
    return load_config(FOLDER / "base" / "serve.yaml", {}, {})


every_overlay = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
servers = pytest.mark.parametrize("overlay", [o for o in OVERLAYS if o.parent.name == "overlays"], ids=lambda p: p.name)


def test_overlays_and_resources_are_found() -> None:
    assert {path.name for path in OVERLAYS} == {"cpu", "gpu", "train"}
    assert len(RESOURCES) >= 8


@pytest.mark.parametrize("path", RESOURCES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_resource_fits_its_schema(path: Path) -> None:
    run(program("kubernetes-validate", "pip install kubernetes-validate"), "--strict", path)


@every_overlay
def test_overlay_fits_the_schemas(overlay: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all(built(overlay)))
    run(program("kubernetes-validate", "pip install kubernetes-validate"), "--strict", file)


@every_overlay
def test_pods_meet_the_restricted_standard(overlay: Path) -> None:
    pod = workload(overlay)["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert pinned(container["image"])
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]["memory"]


@every_overlay
def test_volumes_are_mounted_and_commands_exist(overlay: Path) -> None:
    pod = workload(overlay)["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        if "command" not in container:
            accepts(container["args"])


def test_recipe_of_the_training_exists_and_takes_its_settings() -> None:
    arguments = workload(FOLDER / "train")["spec"]["containers"][0]["args"]
    assert arguments[:2] == ["train", "run"]
    sets = [argument.removeprefix("--set=") for argument in arguments if argument.startswith("--set=")]
    recipe = load_recipe(arguments[2], sets=sets)
    assert recipe.checkpoints.save_steps, "without checkpoints a pod that is tried again begins anew"
    assert "--resume" in arguments


@servers
def test_selectors_select_the_servers(overlay: Path) -> None:
    labels = workload(overlay)["metadata"]["labels"]
    selectors = [
        of_kind(overlay, "Deployment")["spec"]["selector"]["matchLabels"],
        of_kind(overlay, "Service")["spec"]["selector"],
        of_kind(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        of_kind(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        document(FOLDER / "components" / "prometheus-operator" / "pod-monitor.yaml")["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()


@servers
def test_ports_of_probes_policy_and_service_are_the_doors(overlay: Path) -> None:
    config, container = settings(), workload(overlay)["spec"]["containers"][0]
    assert not config.inference.is_loopback
    assert config.admin.is_loopback
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"inference": config.inference.port, "metrics": config.metrics.port}
    probes = [container[f"{name}Probe"]["grpc"] for name in ("startup", "liveness", "readiness")]
    assert {probe["port"] for probe in probes} == {config.inference.port}
    assert [probe.get("service") for probe in probes] == [LIVENESS, LIVENESS, None]
    allowed = [rule["ports"][0]["port"] for rule in of_kind(overlay, "NetworkPolicy")["spec"]["ingress"]]
    assert allowed == [config.inference.port, config.metrics.port]
    (port,) = of_kind(overlay, "Service")["spec"]["ports"]
    assert ports[port["targetPort"]] == config.inference.port


@servers
def test_pods_get_the_time_that_draining_takes(overlay: Path) -> None:
    pod = workload(overlay)["spec"]
    wait = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= wait + settings().drain_seconds + 15


@servers
def test_settings_are_mounted_where_the_server_reads_them(overlay: Path) -> None:
    pod = workload(overlay)["spec"]
    maps = {item["metadata"]["name"] for item in built(overlay) if item["kind"] == "ConfigMap"}
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    (volume,) = [volume for volume in pod["volumes"] if "configMap" in volume]
    assert volume["configMap"]["name"] in maps
    arguments = pod["containers"][0]["args"]
    assert arguments[arguments.index("--config") + 1] == f"{mounts[volume['name']]}/serve.yaml"


def test_gpu_servers_scale_on_a_metric_that_the_adapter_rules_make() -> None:
    overlay = FOLDER / "overlays" / "gpu"
    spec = of_kind(overlay, "HorizontalPodAutoscaler")["spec"]
    deployment = of_kind(overlay, "Deployment")
    assert spec["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    rules = document(FOLDER / "components" / "autoscaling" / "adapter-rules.yaml")["rules"]["custom"]
    assert spec["metrics"][0]["pods"]["metric"]["name"] in [rule["name"]["as"] for rule in rules]
    limits = workload(overlay)["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
