"""The proxy does what it says, and the schedule holds what a run needs: else a chaos run would be calm in secret."""

from __future__ import annotations

import asyncio
from collections import Counter
from urllib.parse import urlsplit

import pytest

from tests.chaos.faults import KINDS, schedule
from tests.chaos.proxy import Proxy


async def say(port: int, command: str, *, timeout: float = 5.0) -> bytes:
    """Send one inline command and return the first line of the answer; b'' when the connection ends instead."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(timeout):
            writer.write(f"{command}\r\n".encode())
            await writer.drain()
            return await reader.readline()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


@pytest.fixture
def port(server):
    port = urlsplit(server.url).port
    assert port
    return port


async def test_what_is_not_cut_passes(port):
    async with Proxy(port) as proxy:
        assert await say(proxy.port, "PING") == b"+PONG\r\n"


async def test_a_cut_answer_leaves_the_work_done(port, namespace):
    async with Proxy(port) as proxy:
        proxy.cut_replies(1)
        assert await say(proxy.port, f"INCR {namespace}") == b""
        assert await say(proxy.port, f"INCR {namespace}") == b":2\r\n"
        assert proxy.cut_count == {"reply": 1, "request": 0}


async def test_a_torn_request_leaves_nothing_done(port, namespace):
    async with Proxy(port) as proxy:
        proxy.tear_requests(1)
        assert await say(proxy.port, f"INCR {namespace}") == b""
        assert await say(proxy.port, f"INCR {namespace}") == b":1\r\n"
        assert proxy.cut_count == {"reply": 0, "request": 1}


@pytest.mark.parametrize(("cut", "answer"), [(True, b""), (False, b"+PONG\r\n")])
async def test_swallowed_traffic_is_cut_or_goes_on(port, cut, answer):
    async with Proxy(port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        swallowing = asyncio.create_task(proxy.swallow(0.2, cut=cut))
        await asyncio.sleep(0)  # let it begin
        writer.write(b"PING\r\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.readline()
        try:
            heard = await reader.readline()
        except ConnectionError:
            heard = b""
        assert heard == answer
        await swallowing
        writer.transport.abort()


async def test_without_a_server_the_client_sees_its_connection_end():
    async with Proxy(1) as proxy:
        assert await say(proxy.port, "PING") == b""


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_is_the_same_for_the_same_seed_and_has_enough_kills(seed):
    faults = schedule(seed, 40, 4)
    assert faults == schedule(seed, 40, 4)
    kinds = Counter(fault.kind for fault in faults)
    assert len(faults) == 40
    assert kinds["agent_kill"] >= 12
    assert kinds["server_kill"] >= 4
    assert set(kinds) == set(KINDS)
