"""What every command shares: the global options, and a mesh to work on.

Global options may stand before or after the command's name; both places write into one `Session`.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from streammesh.cli.output import Output, clean

if TYPE_CHECKING:
    from streammesh.mesh import Mesh

__all__ = ["GLOBALS", "Command", "Noun", "Session", "command"]

#: How long, in seconds, a command goes on trying when the server does not answer.
PATIENCE = 3.0

T = TypeVar("T")


class Session:
    """The global options of one call of `streammesh`."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.namespace: str | None = None
        self.json = False
        self.quiet = False
        self.verbose = 0
        self.color: str | None = None
        self.time: str | None = None

    @property
    def colored(self) -> bool | None:
        """True, False, or None: wherever there is a terminal."""
        if self.color in ("always", "never"):
            return self.color == "always"
        return False if os.environ.get("NO_COLOR") else None

    @property
    def output(self) -> Output:
        return Output(json=self.json, quiet=self.quiet, color=self.colored, time=self.time)

    def settings(self) -> tuple[str, str]:
        """The URL and the namespace: options before environment before defaults."""
        from streammesh.settings import from_env

        known = from_env(os.environ)
        return self.url or known.url, self.namespace or known.namespace

    def mesh(self, *, unsafe: bool = True, patience: float | None = PATIENCE) -> Mesh:
        """A client that is not open yet. ``unsafe``: a server that may evict is good enough to look at."""
        from streammesh.mesh import Mesh

        url, namespace = self.settings()
        return Mesh.connect(url, namespace=namespace, patience=patience, name="streammesh:cli", unsafe=unsafe)

    def run(self, work: Callable[[Mesh], Awaitable[T]], *, unsafe: bool = True) -> T:
        """Open the mesh, do the work, close it."""
        import asyncio

        self.log("ERROR")

        async def main() -> T:
            async with self.mesh(unsafe=unsafe) as mesh:
                return await work(mesh)

        return asyncio.run(main())

    def log(self, level: str, form: str = "%(levelname)s %(message)s") -> None:
        """Send the library's log to stderr from ``level`` on; -v lowers it to INFO, -vv to DEBUG."""
        import logging

        wanted = "DEBUG" if self.verbose > 1 else "INFO" if self.verbose and level != "INFO" else level
        formatter = logging.Formatter(form, datefmt="%H:%M:%S")
        plain = formatter.format
        # What is logged quotes tasks, and a terminal must not obey them.
        formatter.format = lambda record: clean(plain(record), lines=True)  # type: ignore[method-assign]
        handler = logging.StreamHandler()
        handler.setFormatter(formatter)
        logging.basicConfig(level=wanted, handlers=[handler])


def _remember(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        # What stands nearer to the command wins; an option that was not given says nothing.
        if value not in (None, False, 0):
            setattr(context.ensure_object(Session), name, value)

    return callback


class _Everywhere(click.Option):
    """A global option as a command has it: known to the parser and to completion, but not in the list of its help."""

    def get_help_record(self, ctx: click.Context) -> None:
        return None


def _globals(kind: type[click.Option] = click.Option) -> list[click.Option]:
    def option(*declared: str, **how: Any) -> click.Option:
        name = max(declared, key=len).removeprefix("--").replace("-", "_")
        return kind(declared, expose_value=False, callback=_remember(name), **how)

    return [
        option("-u", "--url", metavar="URL", help="The server: redis:// rediss:// unix:// embedded://DIR memory://"),
        option("-N", "--namespace", metavar="NAME", help="The mesh in that server (default: mesh)."),
        option("--json", is_flag=True, help="JSON on stdout: one object, or one a line."),
        option("-q", "--quiet", is_flag=True, help="No notices; lists print ids only."),
        option("-v", "--verbose", count=True, help="Say more on stderr; twice: everything."),
        option("--color", type=click.Choice(["auto", "always", "never"]), help="Colour (default auto; NO_COLOR is honoured)."),
        option("--time", type=click.Choice(["relative", "iso", "ms"]), help="How to write points in time."),
    ]  # fmt: skip


GLOBALS = _globals()


class Command(click.Command):
    """A command that also takes the global options; its help mentions them in one line."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        taken = {opt for parameter in own for opt in parameter.opts}
        return [*own, *(copy for copy in _quiet_copies() if not taken.intersection(copy.opts))]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        with formatter.indentation():
            formatter.write_paragraph()
            formatter.write_text("Also: -u/--url -N/--namespace --json -q -v --color --time; see `streammesh --help`.")


@functools.cache
def _quiet_copies() -> tuple[click.Option, ...]:
    """The global options as a command has them: without an environment variable of their own."""
    copies = _globals(_Everywhere)
    for copy in copies:
        copy.allow_from_autoenv = False
    return tuple(copies)


class Noun(click.Group):
    """A group of commands about one kind of thing."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def command(
    group: click.Group | None = None, name: str | None = None, *, unsafe: bool = True, **how: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of ``async def (mesh, out, **options)``, which gets an open mesh, or of ``def (session, **options)``."""

    def declare(function: Callable[..., Any]) -> click.Command:
        def body(session: Session, /, **options: Any) -> Any:
            if not inspect.iscoroutinefunction(function):
                return function(session, **options)
            out = session.output
            return session.run(lambda mesh: function(mesh, out, **options), unsafe=unsafe)

        said = name or function.__name__.strip("_").replace("_", "-")
        # The decorated options and the docstring travel with the function.
        made = click.command(said, cls=Command, **how)(functools.update_wrapper(click.pass_obj(body), function))
        if group is not None:
            group.add_command(made)
        return made

    return declare
