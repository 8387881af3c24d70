"""Places in code: the line of a workflow that an operator should look at, and which part of asyncio makes a task.

Frames and coroutines are only looked at, never kept.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import CodeType, CoroutineType, FrameType
from typing import Any

__all__ = ["inside", "maker", "place"]

_OURS, _PYTHONS = str(Path(__file__).parent) + "/", str(Path(asyncio.__file__).parents[1]) + "/"
_TASKS = asyncio.tasks.__file__


def _own(code: CodeType) -> bool:
    """Whether it is the workflow's own code, not ours or Python's."""
    name = code.co_filename
    # What is installed lies in a folder of the standard library's.
    return not name.startswith((_OURS, "<")) and (not name.startswith(_PYTHONS) or "/site-packages/" in name)


def place(root: CoroutineType[Any, Any, Any] | None, running: bool) -> str:
    """File and line: of the innermost own code that runs, else of where ``root`` waits, else of where it is written."""
    found = inside(sys._getframe(1)) if running else ""
    if found:
        return found
    at: Any = root
    while isinstance(at, CoroutineType):
        if _own(at.cr_code) and at.cr_frame is not None:
            found = f"{at.cr_code.co_filename}:{at.cr_frame.f_lineno}"
        at = at.cr_await
    if not found and root is not None:
        found = f"{root.cr_code.co_filename}:{root.cr_code.co_firstlineno}"
    return found


def inside(frame: FrameType | None) -> str:
    """File and line of the innermost own code of a workflow that runs in ``frame``; '' when there is none."""
    while frame is not None and frame.f_code.co_name != "drive":
        if _own(frame.f_code):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def maker() -> tuple[str, Any]:
    """Which function of asyncio is having a task made by `ensure_future`, where that matters: ('as_completed', its
    awaitables), ('wait_for', None), or ('', None)."""
    frame: FrameType | None = sys._getframe(2)
    for _ in range(5):
        if frame is None or frame.f_code.co_filename != _TASKS:
            break
        name = frame.f_code.co_name
        if name == "wait_for":
            return name, None
        if name == "as_completed":
            return name, frame.f_locals.get("fs")
        if name == "__init__":
            return "as_completed", frame.f_locals.get("aws")
        frame = frame.f_back
    return "", None
