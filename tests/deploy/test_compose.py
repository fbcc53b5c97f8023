"""The compose files: valid by the specification's schema, pinned, hardened, on loopback, with settings that load."""

import re
from pathlib import Path
from typing import Any

import pytest

from loradeck_serve.config import load_config
from tests.deploy.tools import DEPLOY, accepts, document, pinned, program, run

FOLDER = DEPLOY / "compose"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "serve.yaml")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found = document(FOLDER / "compose.yaml")["services"]
    assert len(found) >= 5
    return dict(found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_fits_the_specification(path: Path) -> None:
    program_path = program("check-jsonschema", "pip install check-jsonschema")
    run(program_path, "--builtin-schema", "vendor.compose-spec", path)


def test_every_variable_has_its_line_in_the_example() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    names = set(re.findall(r"(?<!\$)\$\{(\w+)", text))
    example = {line.partition("=")[0] for line in (FOLDER / "env.example").read_text().splitlines() if "=" in line}
    assert names == example


def test_images_are_pinned_and_ports_on_loopback(services: dict[str, Any]) -> None:
    images = [service["image"] for service in services.values()]
    defaults = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", image) for image in images]
    assert all(map(pinned, defaults)), defaults
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) >= 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_services_that_stay_have_a_read_only_root_and_no_capabilities(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if "restart" in service:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name


def test_mounted_files_exist(services: dict[str, Any]) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", ())]
    files = [mount.partition(":")[0] for mount in mounts if mount.startswith(".")]
    assert files
    assert [file for file in files if not (FOLDER / file).exists()] == []


def test_settings_load_and_fit_the_compose_file(services: dict[str, Any]) -> None:
    config = load_config(FOLDER / "serve.yaml", {}, {})
    assert config.admin.is_loopback
    assert config.registry == services["server"]["environment"]["LORADECK_REGISTRY"]
    assert int(services["server"]["stop_grace_period"].removesuffix("s")) > config.drain_seconds + 10
    assert services["server"]["ports"] == [f"127.0.0.1:8500:{config.inference.port}"]
    scraped = document(DEPLOY / "prometheus" / "prometheus.yaml")["scrape_configs"][0]["static_configs"]
    assert scraped == [{"targets": [f"server:{config.metrics.port}"]}]


def test_health_check_and_commands_exist(services: dict[str, Any]) -> None:
    asked = services["server"]["healthcheck"]["test"]
    assert asked[:2] == ["CMD", "loradeck"]
    accepts(asked[2:])
