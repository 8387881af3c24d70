"""What a private RQ worker of an agent runs: the worker itself (`python -m streammesh.rq.work QUEUE`), and each handler in it.

Its stdin is a pipe from the agent: the first line is the URL of the server (a command line shows passwords), and when the pipe
ends the agent has, and so does the worker.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
import threading
from importlib import import_module
from typing import Any

from streammesh.connections import blocking_client

__all__ = ["handle"]


def handle(where: str, payload: dict[str, Any]) -> Any:
    """Run the handler ``module:name`` with the payload as keyword arguments; an ``async def`` on a loop of its own."""
    module, _, name = where.partition(":")
    function: Any = import_module(module)
    for part in name.split("."):
        function = getattr(function, part)
    if not inspect.iscoroutinefunction(function):
        return function(**payload)

    async def main() -> Any:
        return await function(**payload)

    return asyncio.run(main())


def _end_with_parent() -> None:
    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        # Twice is RQ's word for at once: the agent is gone, and nobody wants the outcome of this attempt any more.
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main(queue: str) -> None:
    from rq import Queue, Worker

    client = blocking_client(sys.stdin.readline().strip())
    _end_with_parent()
    queues = [Queue(queue, connection=client, serializer="json")]
    Worker(queues, connection=client, serializer="json").work(logging_level="WARNING")


if __name__ == "__main__":
    main(sys.argv[1])
