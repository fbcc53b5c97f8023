"""`loradeck serve`: one base and its adapters over gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from loradeck_cli.systemd import notify_systemd
from loradeck_registry.errors import InvalidError

if TYPE_CHECKING:
    from loradeck_serve.app import Server


@click.command()
@click.option("--base", metavar="REF", help="Base or full checkpoint: name[@...], hub:org/name, dir:folder.")
@click.option("--registry", metavar="URL", envvar="LORADECK_REGISTRY", help="Registry folder or URL.")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="YAML file with settings.")
@click.option("--host", help="Interface of the inference door [default: 127.0.0.1].")
@click.option("--port", "--inference-port", "port", type=click.IntRange(0, 65535), help="Inference [default: 8500].")
@click.option("--admin-port", type=click.IntRange(0, 65535), help="Adapter administration [default: 8501].")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Prometheus [default: 8502].")
@click.option("--slots", type=click.IntRange(0), help="Adapters in one batch [default: 4].")
@click.option("--host-adapters", type=click.IntRange(0), help="Adapters in host memory [default: 16].")
@click.option("--max-rank", type=click.IntRange(1), help="Largest LoRA rank [default: 16].")
@click.option("--pin", "pins", multiple=True, metavar="REF", help="Load at start and never evict. Repeatable.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting, such as engine.dtype=float32."
)
@click.option("--tls-cert", type=click.Path(path_type=Path), metavar="PEM", help="Certificate: the doors speak TLS.")
@click.option("--tls-key", type=click.Path(path_type=Path), metavar="PEM", help="Its private key.")
@click.option(
    "--tls-client-ca", type=click.Path(path_type=Path), metavar="PEM", help="Ask callers for certificates of it."
)
@click.option("--callers", type=click.Path(path_type=Path), metavar="YAML", help="Who may do what.")
@click.option("--keys", type=click.Path(path_type=Path), metavar="JSON", help="API keys, made by `loradeck keys`.")
@click.option("--audit-log", type=click.Path(path_type=Path), metavar="PATH", help="File for what operators do.")
@click.option("--insecure", is_flag=True, default=None, help="Let doors listen beyond loopback in plaintext.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
def command(
    base: str | None,
    registry: str | None,
    config_path: Path | None,
    host: str | None,
    port: int | None,
    admin_port: int | None,
    metrics_port: int | None,
    slots: int | None,
    host_adapters: int | None,
    max_rank: int | None,
    pins: tuple[str, ...],
    settings: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    callers: Path | None,
    keys: Path | None,
    audit_log: Path | None,
    insecure: bool | None,
    log_level: str | None,
) -> None:
    """Serve one base and its adapters over gRPC.

    Settings come from the file, then LORADECK_SERVE_... variables (nested with __), then these options. Prints one line
    that starts with `ready` once requests are taken. SIGTERM and Ctrl+C let running requests end first; SIGHUP reads
    limits, callers, keys and certificates again, as a change of their files does.
    """
    import yaml

    from loradeck_serve.config import load_config

    overrides: dict[str, object] = {
        "base": base,
        "registry": registry,
        "inference.host": host,
        "inference.port": port,
        "admin.port": admin_port,
        "metrics.port": metrics_port,
        "slots": slots,
        "host_adapters": host_adapters,
        "max_rank": max_rank,
        "pins": list(pins) or None,
        "tls.certificate": tls_cert,
        "tls.key": tls_key,
        "tls.client_ca": tls_client_ca,
        "access.callers": callers,
        "access.keys": keys,
        "audit_log": audit_log,
        "insecure": insecure or None,
        "log_level": log_level,
    }
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise InvalidError(f"--set takes KEY=VALUE, not {setting!r}", field="set")
        try:
            overrides[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InvalidError(f"--set {key}: the value is not YAML", field="set") from error
    config = load_config(config_path, overrides)

    from loradeck_serve.logs import set_up_logs
    from loradeck_serve.process import serve
    from loradeck_serve.reload import SettingsSource

    set_up_logs(config.log_level)
    source = SettingsSource(lambda: load_config(config_path, overrides), config_path)
    serve(
        config,
        source,
        lambda: click.echo(f"starting the engine on {config.base} (tens of seconds)", err=True),
        _say_ready,
    )


def _say_ready(server: Server) -> None:
    where = server.addresses
    click.echo(f"ready inference={where.inference} admin={where.admin} metrics={where.metrics} base={server.base_name}")
    notify_systemd("READY=1")
