"""Called by RQ's workers when a job of a bridge has ended: one line in the mesh's stream says so.

A worker that has streammesh installed tells at once; of all others the bridge finds out by looking, about a second later.
Nothing here may fail a job: what goes wrong is left to that look.
"""

from __future__ import annotations

import contextlib
from typing import Any

__all__ = ["failed", "stopped", "succeeded"]

#: About how many ends are kept for bridges that are behind.
KEPT = 10_000


def succeeded(job: Any, connection: Any, result: Any, *_: Any) -> None:
    """RQ's on_success."""
    _tell(job, connection, "finished")


def failed(job: Any, connection: Any, *_: Any) -> None:
    """RQ's on_failure: an exception, or its timeout. A killed work-horse calls nothing."""
    _tell(job, connection, "failed")


def stopped(job: Any, connection: Any, *_: Any) -> None:
    """RQ's on_stopped."""
    _tell(job, connection, "stopped")


def _tell(job: Any, connection: Any, state: str) -> None:
    with contextlib.suppress(Exception):
        stream = job.meta["streammesh"]
        connection.xadd(stream, {"job": job.id, "state": state}, maxlen=KEPT, approximate=True)
