"""`loradeck bench`: load tests and other measurements of servers, registries and trainings."""

import click

from loradeck_cli.bench.ab import ab
from loradeck_cli.bench.client import client
from loradeck_cli.bench.fuzz import fuzz
from loradeck_cli.bench.limits import goodput, sweep
from loradeck_cli.bench.load import load
from loradeck_cli.bench.serving import classify, cliff, frontend, multilora
from loradeck_cli.bench.soak import soak
from loradeck_cli.bench.storage import registry_speed, storage
from loradeck_cli.bench.swap import swap
from loradeck_cli.bench.train import command as train


@click.group()
def command() -> None:
    """Load tests and other measurements."""


for _command in (
    load, ab, sweep, goodput, client, multilora, frontend, classify, cliff, swap, train, storage, registry_speed, soak,
    fuzz,
):  # fmt: skip
    command.add_command(_command)
