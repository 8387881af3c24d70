"""A loop that must not end: what an agent does for as long as it is at work."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from streammesh.errors import MeshError

__all__ = ["supervised"]

_log = logging.getLogger("streammesh.agent")


async def supervised(me: str, name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop of the agent ``me`` until it returns or is cancelled; after any error it begins anew, after a pause that doubles."""
    pause = 0.1
    while True:
        began = time.monotonic()
        try:
            await loop()
            return
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if isinstance(error, MeshError):
                _log.warning("agent=%s the %s loop was interrupted: %s", me, name, error)
            else:
                _log.exception("agent=%s the %s loop failed and begins anew", me, name)
        pause = 0.1 if time.monotonic() - began > 10 else min(5.0, pause * 2)
        await asyncio.sleep(pause)
