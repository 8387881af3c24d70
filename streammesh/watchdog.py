"""Says where a workflow computes without giving way: nothing else moves on its agent meanwhile.

It looks, from the heartbeat's thread, at what the thread of the event loop is doing; nothing is traced, and nothing is kept.
"""

from __future__ import annotations

import sys
from types import FrameType

from streammesh.loop import RunLoop
from streammesh.places import inside

__all__ = ["Watchdog"]

_DRIVE = RunLoop.drive.__code__


class Watchdog:
    """Watches the thread ``thread``; tells of one stay in workflow code once, when it has lasted ``limit`` seconds."""

    def __init__(self, thread: int, limit: float = 1.0) -> None:
        self._thread = thread
        self._limit = limit
        self._stay: tuple[str, int, int] | None = None
        self._since = 0.0
        self._said = False

    def look(self, now: float) -> tuple[str, str] | None:
        """(run, file and line) when its workflow has been computing for too long at ``now``, in monotonic seconds."""
        frame: FrameType | None = sys._current_frames().get(self._thread)
        place = inside(frame)
        while frame is not None and frame.f_code is not _DRIVE:
            frame = frame.f_back
        loop = frame.f_locals.get("self") if frame is not None else None
        if not isinstance(loop, RunLoop):
            self._stay = None
            return None
        stay = (loop.run, id(loop), loop.drives)
        if stay != self._stay:
            self._stay, self._since, self._said = stay, now, False
        if self._said or now - self._since < self._limit:
            return None
        self._said = True
        return loop.run, place
