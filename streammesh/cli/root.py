"""The command `streammesh` itself: its table of commands, the global options, and the way every call ends."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

import streammesh
from streammesh.cli.endings import EXIT_CODES, Unread, report
from streammesh.cli.session import GLOBALS, Session

__all__ = ["main", "root", "run"]

#: Section -> command -> (module, what it does). Help and completion need no more than this.
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Work": {
        "enqueue": ("enqueue", "Enqueue one task, or one for each line of input."),
        "call": ("enqueue", "Enqueue a task, wait for it and print its result."),
        "task": ("task", "Look at tasks, wait for them, cancel them, run them again."),
        "run": ("reruns", "Durable runs: start, look into, signal, fork and end them."),
        "schedule": ("schedules", "What is started at set times: add it, pause it, see when it comes."),
        "auction": ("auctions", "Work for the best bidder: open it, see who bid what, cancel it."),
        "vote": ("votes", "Votes of agents: open, look into, count again."),
        "dead": ("dead", "Dead letters: tasks that could not be done."),
        "rq": ("rq", "RQ beside the mesh: bridge its functions, look at its queues, move them over."),
    },
    "Look": {
        "info": ("info", "One screen: every capability and how it is doing."),
        "top": ("info", "The same, live."),
        "trace": ("trace", "Everything that one thing caused, as one tree."),
        "events": ("trace", "What happens in the mesh, as it happens."),
        "keys": ("layout", "The keys of this mesh, with a redis-cli line for each."),
        "doctor": ("doctor", "Judge server, mesh and client; say the cure."),
    },
    "Run": {
        "agent": ("agent", "Run the agent of an app."),
        "dev": ("dev", "A server and agents in one terminal, for development."),
        "agents": ("agents", "The agents of this mesh."),
        "caps": ("caps", "The capabilities of this mesh; pause and resume them."),
        "gossip": ("gossip", "What agents tell each other; whether all know the same."),
        "completion": ("completion", "Print the completion script of a shell."),
    },
}

EPILOG = """\
The server is --url, else $STREAMMESH_REDIS_URL, else $REDIS_URL, else one that is started for you and keeps its data in
./.streammesh. Every option can be given as STREAMMESH_<COMMAND>_<OPTION>, the global ones as STREAMMESH_<OPTION>."""


class Root(click.Group):
    """Loads a command's module when the command is asked for."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self._table = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
        # What click offers for a misspelt name; the real commands come from `get_command`.
        self.commands = {name: click.Command(name, short_help=entry[1]) for name, entry in self._table.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return None
        module = import_module(f"streammesh.cli.{self._table[cmd_name][0]}")
        found: click.Command = getattr(module, f"{cmd_name}_command")
        return found

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # click would end with 1, as if something had failed.
            raise Unread from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, about) for name, (_, about) in commands.items()], col_max=14)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES.items()])
        formatter.write_paragraph()
        formatter.write_text(EPILOG)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"streammesh {streammesh.__version__}")
        ctx.exit()


@click.pass_context
def _root(ctx: click.Context) -> None:
    """Durable tasks across plain Python processes, on Redis Streams that you can read with redis-cli."""
    ctx.ensure_object(Session)


root = Root(
    name="streammesh",
    callback=_root,
    params=[
        *GLOBALS,
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, help="Print the version and exit.",
            callback=_version,
        ),
    ],
    help=_root.__doc__,
    context_settings={"auto_envvar_prefix": "STREAMMESH", "help_option_names": ["-h", "--help"], "max_content_width": 110},
)  # fmt: skip


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit code. Nothing is raised."""
    session = Session()
    try:
        code = root.main(args=arguments, prog_name="streammesh", standalone_mode=False, obj=session)
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise Unread from None
        return code if isinstance(code, int) and not isinstance(code, bool) else 0
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:
        return report(error, verbose=bool(session.verbose), color=session.colored)


def main() -> NoReturn:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        # What tasks hold need not fit the terminal's encoding, nor be text at all.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run())
