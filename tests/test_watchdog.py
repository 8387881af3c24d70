"""A workflow that computes for long is named, with its line, while it does; one that waits is not."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from streammesh import Agent, Mesh, Run
from streammesh.watchdog import Watchdog

pytestmark = pytest.mark.anyio


async def test_where_a_workflow_computes_is_said_once(
    url: str, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent("busy", lease=2.0)
    said = threading.Event()

    def told(record: logging.LogRecord) -> bool:
        if "without giving way" in record.getMessage():
            said.set()
        return True

    @agent.workflow("grind")
    async def grind(run: Run) -> int:
        turns = 0
        until = time.monotonic() + 20
        while not said.is_set() and time.monotonic() < until:
            turns += 1
        return 1

    log = logging.getLogger("streammesh.agent")
    log.addFilter(told)
    try:
        async with Mesh.connect(url, namespace=namespace) as mesh:
            serving = asyncio.create_task(agent.serve(mesh))
            run = await mesh.start("grind")
            assert await run.result(30) == 1
            agent.stop()
            await serving
    finally:
        log.removeFilter(told)
    texts = [text for text in caplog.messages if "without giving way" in text]
    assert len(texts) == 1
    assert run.id in texts[0]
    assert f"[{__file__}:" in texts[0]


def test_other_code_is_not_its_business() -> None:
    watchdog = Watchdog(threading.get_ident(), limit=0.0)
    assert watchdog.look(time.monotonic()) is None
