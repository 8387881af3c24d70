"""`agent`: serve the agent of an app in this process, or in several that are watched over."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streammesh.cli.parameters import DURATION
from streammesh.cli.session import Session, command

if TYPE_CHECKING:
    from streammesh.agent import Agent

__all__ = ["LOG", "agent_command", "agent_options", "checked"]

LOG = "%(asctime)s %(levelname)s %(message)s"


def agent_options(function: Any) -> Any:
    """What `agent` and `dev` have in common."""
    for option in reversed(
        [
            click.option("-a", "--app", "apps", envvar="STREAMMESH_APP", multiple=True, required=True, metavar="MODULE[:AGENT]", help="The Agent to serve, from the current directory or the path; may be repeated, then each has processes of its own."),
            click.option("--slots", type=click.IntRange(1), metavar="N", help="Tasks at once (default: the agent's own)."),
            click.option("--lease", type=DURATION, metavar="DURATION", help="Silence after which it counts as dead (default: its own)."),
            click.option("--grace", type=DURATION, metavar="DURATION", help="What running tasks get when it stops (default: its own)."),
            click.option("--reload", is_flag=True, help="Drain and start anew when Python files here change."),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


@command(
    epilog="SIGTERM or Ctrl-C drains: nothing new is taken, unstarted work is handed back; a second one stops at once."
)
@agent_options
@click.option("--name", metavar="NAME", help="Another name for the agent.")
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    default=1,
    metavar="N",
    help="So many processes; a crashed one is restarted.",
)
@click.option("--burst", is_flag=True, help="End when nothing waits.")
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Kept fresh while the agent is ready, for health checks.",
)
@click.option("--unsafe", is_flag=True, help="Accept a server that may evict keys, and so lose work.")
@click.option("--supervised", is_flag=True, hidden=True)
def agent(
    session: Session, apps: tuple[str, ...], processes: int, reload: bool, supervised: bool, **options: Any
) -> int:
    """Serve an agent until it is stopped."""
    session.log("WARNING" if session.quiet else "INFO", LOG)
    if supervised:
        _end_with_parent()
    if processes == 1 and len(apps) == 1 and not reload:
        return _serve(session, apps[0], **options)
    from streammesh.cli.supervise import Supervisor, child_of

    for app in apps:
        checked(session, app, **options)
    url, namespace = session.settings()
    ready = options.pop("ready_file")
    supervisor = Supervisor(
        [child_of(session, app, url, namespace, options) for app in apps for _ in range(processes)],
        grace=options["grace"] or 30.0, ready_file=ready, reload=reload,
    )  # fmt: skip
    return supervisor.run()


def checked(session: Session, app: str, *, name: str | None, slots: int | None, lease: float | None, grace: float | None, **_: Any) -> Agent:  # fmt: skip
    """The agent of the app, with the options of the command line in place of its own. Raises Ended, ConfigError."""
    from streammesh.agent import Agent
    from streammesh.cli.apps import find_agent

    found = find_agent(app, verbose=bool(session.verbose))
    # A throw-away one judges the values by the same rules, with the same words.
    fresh = Agent(
        name or found.name, slots=slots or found.slots, lease=found.lease if lease is None else lease,
        grace=found.grace if grace is None else grace,
    )  # fmt: skip
    found.name, found.slots, found.lease, found.grace = fresh.name, fresh.slots, fresh.lease, fresh.grace
    return found


def _serve(session: Session, app: str, *, burst: bool, ready_file: Path | None, unsafe: bool, **options: Any) -> int:
    found = checked(session, app, **options)
    if session.verbose < 2:
        import logging

        logging.getLogger("asyncio").setLevel(logging.WARNING)
    url, namespace = session.settings()
    return found.run(url, namespace=namespace, burst=burst, ready_file=ready_file, unsafe=unsafe)


def _end_with_parent() -> None:
    """Drain when the supervisor is gone, however it went: our stdin is its pipe, and that ends with it."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


agent_command = agent
