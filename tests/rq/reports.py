"""What an RQ user has: functions in a module. The workers of these tests import it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from streammesh import Agent


def build(title: str, pages: int = 1) -> dict[str, Any]:
    return {"title": title, "pages": pages, "pid": os.getpid()}


def note(path: str, word: str) -> str:
    """Leaves a line for each time it runs."""
    with Path(path).open("a") as file:
        file.write(word + "\n")
    return word


def slow_note(path: str, word: str, until: str) -> str:
    note(path, word)
    while not Path(until).exists():
        time.sleep(0.01)
    return word


def broken(reason: str) -> None:
    raise ValueError(reason)


def murdered(path: str) -> None:
    """Dies as by the kernel's out-of-memory killer: no callback, no exception."""
    note(path, "began")
    os.kill(os.getpid(), signal.SIGKILL)


def endless(path: str) -> None:
    note(path, "began")
    while True:
        time.sleep(0.01)


def unsendable() -> Any:
    return float("nan")


heavy = Agent("heavy", slots=2, lease=2.0)


@heavy.capability("square", isolation="rq")
def square(n: int) -> dict[str, int]:
    return {"squared": n * n, "pid": os.getpid()}


@heavy.capability("crash", isolation="rq")
def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@heavy.capability("spin", isolation="rq", timeout=1.0)
async def spin(path: str) -> None:
    endless(path)
