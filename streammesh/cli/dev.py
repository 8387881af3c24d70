"""`dev`: a server and agents in one terminal. Ctrl-C drains the agents and stops the server; its data stays."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Any

import click

from streammesh.cli.agent import LOG, agent_options, checked
from streammesh.cli.output import Output
from streammesh.cli.session import Session, command

__all__ = ["dev_command"]


@command(epilog="In another terminal, in the same folder, every other command works without --url: streammesh info")
@agent_options
@click.option(
    "--agents", "count", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes for each app."
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".streammesh"),
    show_default=True,
    help="Where the server keeps its data.",
)
@click.option("--ephemeral", is_flag=True, help="Keep nothing: a folder that is removed at the end.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Listen on this port of 127.0.0.1 as well (0: only on a socket in the folder).",
)
def dev(
    session: Session,
    apps: tuple[str, ...],
    count: int,
    data: Path,
    ephemeral: bool,
    port: int,
    reload: bool,
    **options: Any,
) -> int:
    """Run a server and the agents of an app, for development."""
    from streammesh.cli.supervise import Supervisor, child_of

    session.log("WARNING" if session.quiet else "INFO", LOG)
    folder = Path(tempfile.mkdtemp(prefix="streammesh-dev-")) if ephemeral else data
    for app in apps:
        checked(session, app, name=None, **options)
    session.url = f"embedded://{folder.absolute()}" + (f"?port={port}" if port else "")
    _, namespace = session.settings()
    grace = options["grace"] or 30.0

    async def main() -> int:
        # This client holds the server: commands of others come and go, and the last one to leave would stop it.
        async with session.mesh() as mesh:
            _announce(session.output, mesh.url, namespace, folder, port)
            children = [child_of(session, app, mesh.url, namespace, options) for app in apps for _ in range(count)]
            return await Supervisor(children, grace=grace, reload=reload).supervise()

    try:
        return asyncio.run(main())
    finally:
        if ephemeral:
            shutil.rmtree(folder, ignore_errors=True)


def _announce(out: Output, url: str, namespace: str, folder: Path, port: int) -> None:
    from streammesh.cli.layout import redis_cli

    if out.json:
        out.object(
            {
                "url": url,
                "namespace": namespace,
                "data": str(folder.absolute()),
                "redis_cli": redis_cli(url),
                "pid": os.getpid(),
            }
        )
        return
    rows = [("server", f"redis://127.0.0.1:{port}" if port else url), ("data", str(folder)), ("look", redis_cli(url))]
    if not port:
        rows.append(("elsewhere", f"export STREAMMESH_REDIS_URL={shlex.quote(url)}"))
    out.pairs(rows)


dev_command = dev
