"""How a command ends: the exit codes, and what is said on stderr when it did not go well."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback

import click

from streammesh.cli.output import clean

__all__ = ["EXIT_CODES", "Ended", "Missing", "Refused", "Unread", "code_of", "report"]

EXIT_CODES = {
    0: "done; the task succeeded; the mesh is healthy",
    1: "what was asked about failed: the task failed, doctor found a fault",
    2: "wrong usage, option, name, URL or payload",
    3: "the server cannot be reached, is too old or would lose work",
    4: "no such task, run, step, schedule, vote, auction, agent, capability or dead letter",
    5: "waited long enough; the outcome is still open",
    6: "refused: known id with another payload, not in a state for that",
    130: "interrupted (agents: after a clean drain)",
    143: "terminated (agents: after a clean drain)",
}


class Ended(Exception):
    """A command that ends with ``code``; ``message`` says why (nothing is printed when it is empty)."""

    def __init__(self, message: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Missing(Ended):
    """There is no such thing."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 4)


class Refused(Ended):
    """It is there, but not in a state for that."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 6)


class Unread(Exception):
    """Whoever read our output has seen enough (`| head`)."""


def code_of(error: BaseException) -> int:
    """The exit code that an error of the engine stands for."""
    from streammesh import errors

    table: list[tuple[type[BaseException], int]] = [
        (errors.ServerUnfit, 3),
        (errors.ConfigError, 2),
        (errors.StoreUnavailable, 3),
        (errors.PayloadError, 2),
        (errors.PayloadConflict, 6),
        (errors.TaskNotFound, 4),
        (errors.RunNotFound, 4),
        (errors.StepNotFound, 4),
        (errors.RunConflict, 6),
        (errors.ScheduleNotFound, 4),
        (errors.VoteNotFound, 4),
        (errors.AuctionNotFound, 4),
        (errors.VoteConflict, 6),
        (errors.BallotRefused, 6),
        (errors.ResultTimeout, 5),
        (errors.UnknownAgent, 4),
        (errors.NoCapableAgent, 4),
        (errors.RequestTimeout, 5),
    ]
    return next((code for kind, code in table if isinstance(error, kind)), 1)


def report(error: BaseException, *, verbose: bool, color: bool | None = None) -> int:
    """Say on stderr what went wrong, in one line of cause and cure, and return the exit code."""
    if isinstance(error, Unread):
        # What is still buffered goes nowhere.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, Ended):
        if str(error):
            _say(str(error), color)
        return error.code
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show(sys.stderr)
        return 2
    if isinstance(error, click.ClickException):
        _say(error.format_message(), color)
        context = getattr(error, "ctx", None)
        if context is not None:
            click.echo(f"see: {context.command_path} --help", err=True)
        return 2
    if isinstance(error, click.Abort | KeyboardInterrupt):
        _say("interrupted", color)
        return 130
    if verbose:
        traceback.print_exception(error)
    from streammesh.errors import MeshError

    if isinstance(error, MeshError):
        _say(str(error) or type(error).__name__, color)
        return code_of(error)
    frame = traceback.extract_tb(error.__traceback__)[-1] if error.__traceback__ else None
    where = f" ({frame.filename}:{frame.lineno})" if frame else ""
    _say(
        f"a fault in streammesh itself: {type(error).__name__}: {error}{where}; -v shows all of it, please report it",
        color,
    )
    return 1


def _say(message: str, color: bool | None) -> None:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {clean(message, lines=True)}", err=True, color=color)
