"""Envoy: its configuration fits Envoy's own protos, and does what the client's library does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from loradeck_client.channel import Settings
from loradeck_serve.config import load_config
from tests.deploy.tools import DEPLOY, document, program, run

FOLDER = DEPLOY / "kubernetes" / "components" / "envoy"
CHECK = """
import importlib, sys, yaml
from google.protobuf import json_format

MODULES = {
    "HttpConnectionManager": "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
    "Router": "envoy.extensions.filters.http.router.v3.router_pb2",
    "HttpProtocolOptions": "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2",
    "PreviousHostsPredicate": "envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2",
}
from envoy.config.bootstrap.v3 import bootstrap_pb2
for module in MODULES.values():
    importlib.import_module(module)
with open(sys.argv[1]) as file:
    json_format.ParseDict(yaml.safe_load(file), bootstrap_pb2.Bootstrap())
"""


@pytest.fixture(scope="module")
def protos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Envoy's protos in a folder of their own: in the environment they would take the place of others' files."""
    folder = tmp_path_factory.mktemp("protos")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--target", str(folder), "xds-protos==1.85.0"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip("no package index with xds-protos can be reached")
    return folder


def check(protos: Path, file: Path) -> subprocess.CompletedProcess[str]:
    """Parse a configuration as Envoy does; unknown fields and wrong types are errors."""
    environment = os.environ | {"PYTHONPATH": str(protos)}
    command = [sys.executable, "-c", CHECK, str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_configuration_fits_the_protos(protos: Path) -> None:
    done = check(protos, FOLDER / "envoy.yaml")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", ["lb_policy: MAGLEV", "hash_policy:", "retry_on:", "http2_protocol_options: {}"])
def test_check_finds_a_misspelt_word(protos: Path, tmp_path: Path, line: str) -> None:
    text = (FOLDER / "envoy.yaml").read_text()
    assert line in text
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace(line, "x" + line))
    assert check(protos, wrong).returncode != 0


def routes() -> list[dict[str, Any]]:
    """The routes of the one listener."""
    (listener,) = document(FOLDER / "envoy.yaml")["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    found = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert isinstance(found, list)
    return found


def test_header_of_the_hash_is_the_one_that_clients_send() -> None:
    (policy,) = routes()[0]["route"]["hash_policy"]
    assert policy["header"]["header_name"] in dict(Settings("x:1").metadata(None, "clf"))


def test_ports_names_and_times_are_those_of_the_servers() -> None:
    config = load_config(DEPLOY / "kubernetes" / "base" / "serve.yaml", {}, {})
    (cluster,) = document(FOLDER / "envoy.yaml")["static_resources"]["clusters"]
    address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    servers = document(FOLDER / "servers.yaml")
    assert servers["metadata"]["name"] == address["address"]
    assert servers["spec"]["clusterIP"] == "None"
    assert address["port_value"] == config.inference.port
    server = document(DEPLOY / "kubernetes" / "base" / "deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert servers["spec"]["selector"].items() <= server.items()
    longest = routes()[0]["route"]["max_stream_duration"]["grpc_timeout_header_max"]
    assert float(longest.rstrip("s")) >= config.limits.max_deadline_seconds


def test_component_is_built_with_an_overlay_and_fits_the_schemas(tmp_path: Path) -> None:
    kubectl = program("kubectl", "kustomize comes with it")
    overlay = DEPLOY / "kubernetes" / "overlays" / "cpu"
    made = tmp_path / "overlay"
    made.mkdir()
    (made / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": [os.path.relpath(overlay, made)], "components": [os.path.relpath(FOLDER, made)]})
    )
    everything = run(kubectl, "kustomize", made)
    items = [item for item in yaml.safe_load_all(everything) if item]
    assert {"loradeck", "loradeck-balancer"} <= {i["metadata"]["name"] for i in items if i["kind"] == "Deployment"}
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all(items))
    run(program("kubernetes-validate", "pip install kubernetes-validate"), "--strict", file)
