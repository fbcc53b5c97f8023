"""Entry point: finds the group, runs it, and turns errors into one clear line and an exit code."""

import difflib
import importlib
import os
import sys

import click

from loradeck_registry.errors import Kind, LoradeckError

GROUPS = {
    "train": ("train.group", "Train adapters and full checkpoints from recipes, and publish them."),
    "registry": ("registry.group", "Keep, show, move and verify revisions."),
    "serve": ("serve", "Serve one base and its adapters over gRPC."),
    "query": ("query", "Ask a server: classify, short, long, generate."),
    "adapters": ("adapters.group", "See and change what a server holds."),
    "keys": ("keys", "Make, show and end the API keys of a server's callers."),
    "health": ("health", "Ask whether a server takes requests."),
    "doctor": ("doctor", "Say what keeps loradeck from working here, and what to do."),
    "eval": ("evaluate.group", "Measure the quality of a served adapter or base."),
    "bench": ("bench.group", "Load tests and other measurements."),
    "study": ("study.group", "Repeat a published study: train, serve, evaluate, tables and figures."),
    "demo": ("demo", "The whole story on this machine, in minutes."),
}


class LazyGroups(click.Group):
    """Shows every group's line of help without importing it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(GROUPS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in GROUPS and not name.startswith("-"):
            near = difflib.get_close_matches(name, GROUPS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(GROUPS)}"
            ctx.fail(f"no such command {name!r}: {hint}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in GROUPS:
            return None
        command = importlib.import_module(f"loradeck_cli.{GROUPS[cmd_name][0]}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in GROUPS.items()])


@click.group(cls=LazyGroups, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="loradeck", prog_name="loradeck")
@click.option("--debug", is_flag=True, envvar="LORADECK_DEBUG", help="Show the trace of an error.")
@click.pass_context
def loradeck(ctx: click.Context, debug: bool) -> None:
    """Train LoRA adapters, keep them in a registry, serve many on one base."""
    ctx.obj = {"debug": debug}
    if debug:
        os.environ["LORADECK_DEBUG"] = "1"


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    if "--debug" not in sys.argv and not os.environ.get("LORADECK_DEBUG"):
        # gRPC's core would print lines of its own above ours, as when a port is in use, or a certificate is refused.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        loradeck(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        # click wraps what was raised; a run that kept something says so.
        click.echo(str(error.__cause__ or error) or "interrupted", err=True)
        sys.exit(130)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except LoradeckError as error:
        if os.environ.get("LORADECK_DEBUG"):
            raise
        click.echo(f"error: {error.message}", err=True)
        sys.exit(2 if error.kind is Kind.INVALID else 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except PermissionError as error:
        if os.environ.get("LORADECK_DEBUG"):
            raise
        click.echo(f"error: no permission for {error.filename or 'a file'}", err=True)
        sys.exit(1)
    except Exception as error:
        if os.environ.get("LORADECK_DEBUG"):
            raise
        click.echo(
            f"error: unexpected {type(error).__name__}: {error} (this is a bug; --debug shows the trace)", err=True
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
