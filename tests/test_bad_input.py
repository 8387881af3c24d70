"""Bad input, item by item: each ends as a typed error or a dead letter that names cause and cure, and costs nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis

from streammesh import Agent, Mesh, TaskContext
from streammesh.dead import Letter
from streammesh.errors import (
    ConfigError,
    InvalidName,
    InvalidPayload,
    PayloadTooLarge,
    ResultTimeout,
    TaskDead,
    UnknownAgent,
)
from streammesh.testing import leaked_keys, run_until_idle
from tests.eventually import eventually

MIB = 1024 * 1024


@pytest.fixture(params=[1, 3], ids=["one-shard", "three-shards"])
async def mesh(request: pytest.FixtureRequest, url: str, namespace: str) -> AsyncIterator[Mesh]:
    async with Mesh.connect(url, namespace=namespace, shards=request.param) as mesh:
        yield mesh


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url) as redis:
        yield redis


def taker() -> Agent:
    agent = Agent("taker", slots=4, lease=1.0)

    @agent.capability("take", retries=3)
    async def take(n: Any, ctx: TaskContext) -> str:
        return f"took {type(n).__name__}"

    @agent.capability("other")
    async def other(**_: Any) -> str:
        return "fine"

    return agent


async def letters(mesh: Mesh) -> list[Letter]:
    return [letter async for letter in mesh.dead.letters()]


# -- entries that somebody typed into redis-cli

BOMBS: dict[str, tuple[bytes, str]] = {
    "no JSON": (b'{"n": ', "not JSON"),
    "two values": (b'{"n": 1} {"n": 2}', "not JSON"),
    "byte order mark": (b'\xef\xbb\xbf{"n": 1}', "not JSON"),
    "an array": (b"[1, 2]", "JSON array; expected an object"),
    "a string": (b'"n"', "JSON string; expected an object"),
    "a number": (b"17", "JSON number; expected an object"),
    "null": (b"null", "JSON null; expected an object"),
    "blank": (b" \n", "misses n"),
    "another field": (b'{"m": 1}', "misses n and has the unknown m; take takes n"),
    "NaN": (b'{"n": NaN}', "not JSON"),
    "infinity": (b'{"n": -Infinity}', "not JSON"),
    "a float beyond 64 bits": (b'{"n": 1e999}', "beyond 64 bits|not JSON|Infinity"),
    "an integer beyond 64 bits": (b'{"n": 123456789012345678901234567890}', "integer beyond 64 bits"),
    "an endless integer": (b'{"n": ' + b"9" * 100_000 + b"}", "not JSON: number is infinity"),
    "a key twice": (b'{"n": 1, "n": 2}', "key 'n' twice"),
    "a key twice, deep inside": (b'{"n": [{"a": {"b": 1, "b": 1}}]}', "key 'b' twice"),
    "a key twice, once escaped": (b'{"n": 1, "\\u006e": 2}', "key 'n' twice"),
    "not UTF-8": (b'{"n": "\xff\xfe"}', "not UTF-8"),
    "a lone surrogate": (b'{"n": "\\ud800"}', "not JSON"),
    "65 levels": (b'{"n":' + b"[" * 64 + b"]" * 64 + b"}", "deeper than 64"),
    "100,000 levels": (b'{"n":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deeper than 64"),
    "100,000 levels without an end": (b'{"n":' + b'{"n":' * 100_000, "deeper than 64"),
    "over a MiB": (b'{"n": "' + b"x" * MIB + b'"}', "1048585 bytes, 1048576 are allowed"),
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_bad_payload_by_xadd_is_a_dead_letter_and_nothing_else_is_lost(mesh: Mesh, redis: Redis, bomb: str) -> None:  # fmt: skip
    text, said = BOMBS[bomb]
    before = await mesh.enqueue("take", n=1)
    await redis.xadd(mesh.keys.tasks("take"), {"payload": text})
    after = await mesh.enqueue("take", n=2)
    report = await run_until_idle(mesh, taker())
    assert [await before.result(1), await after.result(1)] == ["took int"] * 2
    assert (report.succeeded, report.dead, report.attempts) == (2, 1, 3)
    (letter,) = await letters(mesh)
    assert letter.reason == "invalid_payload"
    assert letter.payload.encode(errors="surrogateescape") == text
    with pytest.raises(AssertionError if not said else InvalidPayload, match=said):
        raise InvalidPayload(letter.error)
    assert await leaked_keys(mesh) == []


@pytest.mark.parametrize(
    "text",
    [
        b'{"n": "[[[[' + b"[{" * 500 + b'"}',
        b'{"n": "\\" [[[[' + b"[{" * 500 + b'\\\\"}',
        b'{"n":' + b"[" * 63 + b"]" * 63 + b"}",
        b'{"n": "\\u0000\\ud83d\\ude00"}',
        b'{"n": 18446744073709551615}',
        b'{"n": -9223372036854775808}',
        b'{"n": "' + b"x" * (MIB - 9) + b'"}',
        b'\t{\r\n"n"\n:\n1.50e2}',
    ],
    ids=range(8),
)
async def test_what_only_looks_bad_is_done(mesh: Mesh, redis: Redis, text: bytes) -> None:
    await redis.xadd(mesh.keys.tasks("take"), {"payload": text})
    assert (await run_until_idle(mesh, taker())).succeeded == 1


FLAWS: dict[str, tuple[dict[str, bytes], str, str]] = {
    "an id with braces": ({"id": b"{oops}"}, "invalid_payload", "id '{oops}' is not usable"),
    "an empty id": ({"id": b""}, "invalid_payload", "id '' is not usable"),
    "an endless id": ({"id": b"x" * 5000}, "invalid_payload", "is not usable; expected 1 to 128"),
    "an id that is not UTF-8": ({"id": b"\xff"}, "invalid_payload", "is not usable"),
    "a deadline in words": ({"deadline": b"tomorrow"}, "invalid_payload", "deadline 'tomorrow' is not usable"),
    "a deadline that is NaN": ({"deadline": b"nan"}, "invalid_payload", "deadline 'nan' is not usable"),
    "a deadline without end": ({"deadline": b"inf"}, "invalid_payload", "deadline 'inf' is not usable"),
    "a deadline with a fraction": ({"deadline": b"99999999999999.5"}, "invalid_payload", "is not usable"),
    "a deadline in hex": ({"deadline": b"0xffffffffffff"}, "invalid_payload", "is not usable"),
    "an endless deadline": ({"deadline": b"9" * 400}, "invalid_payload", "is not usable"),
}


@pytest.mark.parametrize("flaw", FLAWS)
async def test_a_bad_field_of_an_entry_is_a_dead_letter(mesh: Mesh, redis: Redis, flaw: str) -> None:
    reason, said = FLAWS[flaw][1:]
    fields: dict[Any, Any] = {"payload": b'{"n": 1}', **FLAWS[flaw][0]}
    await redis.xadd(mesh.keys.tasks("take"), fields)
    good = await mesh.enqueue("take", n=2)
    await run_until_idle(mesh, taker(), timeout=5)
    assert await good.result(1) == "took int"
    (letter,) = await letters(mesh)
    assert (letter.reason, said in letter.error) == (reason, True), letter.error
    assert await leaked_keys(mesh) == []


async def test_fields_that_mean_something_elsewhere_are_headers_here(mesh: Mesh, redis: Redis) -> None:
    """A stranger's entry cannot forge the record of its task."""
    fields: dict[Any, Any] = dict.fromkeys(("state", "agent", "attempt", "failures", "deaths", "entry", "waiters", "to", "priority", "due", "cancel", "run", "type", "flaw", "capability"), b"forged")  # fmt: skip
    await redis.xadd(mesh.keys.tasks("take"), {**fields, "payload": b'{"n": 1}'})
    assert (await run_until_idle(mesh, taker(), timeout=5)).succeeded == 1
    assert await leaked_keys(mesh) == []


async def test_an_entry_of_thousands_of_fields_is_a_dead_letter(mesh: Mesh, redis: Redis) -> None:
    await redis.xadd(mesh.keys.tasks("take"), {"payload": b'{"n": 1}', **{f"h{n}": b"x" for n in range(10_000)}})
    good = await mesh.enqueue("take", n=2)
    assert (await run_until_idle(mesh, taker(), timeout=5)).succeeded == 1
    assert await good.result(1) == "took int"
    assert [letter.error for letter in await letters(mesh)] == ["the entry has 10001 fields"]


async def test_an_entry_with_nothing_known_in_it(mesh: Mesh, redis: Redis) -> None:
    await redis.xadd(mesh.keys.tasks("take"), {"hello": b"world"})
    await redis.xadd(mesh.keys.tasks("other"), {"hello": b"world"})
    report = await run_until_idle(mesh, taker(), timeout=5)
    assert (report.succeeded, report.dead) == (1, 1)


# -- what the client refuses before anything is sent

DEEP: Any = []
for _ in range(70):
    DEEP = [DEEP]
ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)

REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a name with a blank": ({"capability": "Take It"}, InvalidName, "capability 'Take It' is not usable: expected"),
    "a name with braces": ({"capability": "{x}"}, InvalidName, "not usable"),
    "an empty name": ({"capability": ""}, InvalidName, "not usable"),
    "an endless name": ({"capability": "x" * 65}, InvalidName, "1 to 64 characters"),
    "no name": ({"capability": None}, InvalidName, "None is not usable"),
    "an id with a newline": ({"id": "a\n"}, InvalidName, "task id"),
    "an empty id": ({"id": ""}, InvalidName, "task id '' is not usable"),
    "an endless id": ({"id": "x" * 129}, InvalidName, "1 to 128"),
    "a number as id": ({"id": 17}, InvalidName, "task id 17 is not usable"),
    "a list": ({"payload": [1]}, InvalidPayload, "the payload is a list; expected a mapping"),
    "a string": ({"payload": "n"}, InvalidPayload, "the payload is a str"),
    "NaN": ({"payload": {"n": float("nan")}}, InvalidPayload, "NaN or an infinity"),
    "infinity": ({"payload": {"n": [{"a": (1, float("-inf"))}]}}, InvalidPayload, "NaN or an infinity"),
    "bytes": ({"payload": {"n": b"x"}}, InvalidPayload, "not JSON"),
    "a set": ({"payload": {"n": {1}}}, InvalidPayload, "not JSON"),
    "an object": ({"payload": {"n": object()}}, InvalidPayload, "not JSON"),
    "a number as key": ({"payload": {1: 2}}, InvalidPayload, "not JSON"),
    "an integer beyond 64 bits": ({"payload": {"n": 2**64}}, InvalidPayload, "not JSON"),
    "a lone surrogate": ({"payload": {"n": "\ud800"}}, InvalidPayload, "not JSON"),
    "a lone surrogate as key": ({"payload": {"\ud800": 1}}, InvalidPayload, "not JSON"),
    "65 levels": ({"payload": {"n": DEEP}}, InvalidPayload, "deeper than 64 levels"),
    "endless levels": ({"payload": {"n": ENDLESS}}, InvalidPayload, "not JSON|deeper"),
    "over a MiB": ({"payload": {"n": "x" * MIB}}, PayloadTooLarge, "store it elsewhere and pass a reference"),
    "an unknown priority": ({"priority": "urgent"}, InvalidPayload, "expected one of high, normal, low"),
    "a negative delay": ({"delay": -1}, InvalidPayload, "delay=-1 is not usable"),
    "a delay that is NaN": ({"delay": float("nan")}, InvalidPayload, "delay=nan is not usable"),
    "a delay without end": ({"delay": float("inf")}, InvalidPayload, "delay=inf is not usable"),
    "a delay in words": ({"delay": "5"}, InvalidPayload, "delay='5' is not usable"),
    "delay and at": ({"delay": 1, "at": datetime.now(UTC)}, InvalidPayload, "both given"),
    "at without a zone": ({"at": datetime(2030, 1, 1)}, InvalidPayload, "no time zone"),  # noqa: DTZ001
    "at in words": ({"at": "2030-01-01"}, InvalidPayload, "at='2030-01-01' is not usable"),
    "a negative deadline": ({"deadline": -1}, InvalidPayload, "deadline=-1 is not usable"),
    "a header of the wire": ({"headers": {"payload": "x"}}, InvalidPayload, "header 'payload' cannot be used"),
    "a header's odd name": ({"headers": {"a b": "x"}}, InvalidName, "header name 'a b' is not usable"),
    "a header that is no text": ({"headers": {"a": None}}, InvalidPayload, "header 'a' cannot be used"),
    "a header that is not UTF-8": ({"headers": {"a": "\ud800"}}, InvalidPayload, "header 'a' cannot be used"),
    "an endless header": ({"headers": {"a": "x" * MIB}}, InvalidPayload, "headers"),
    "endless headers": ({"headers": {f"h{n}": "x" for n in range(5000)}}, InvalidPayload, "headers"),
    "no such agent": ({"to": "nobody"}, UnknownAgent, "'nobody'; alive: nobody"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_the_client_refuses_before_anything_is_sent(url: str, namespace: str, case: str) -> None:
    options, error, said = REFUSED[case]
    options = {"capability": "take", "payload": {"n": 1}, **options}
    capability, payload = options.pop("capability"), options.pop("payload")
    async with Mesh.connect(url, namespace=namespace) as mesh:
        with pytest.raises(error, match=said):
            await mesh.enqueue(capability, payload, **options)
        if "to" not in options:
            ids: dict[str, Any] = {"ids": [options.pop("id")]} if "id" in options else {}
            with pytest.raises(error, match=said):
                await mesh.enqueue_many(capability, [payload], **ids, **options)
        assert [one async for one in mesh.dead.letters()] == []
        assert await mesh.status.capabilities() == []


async def test_a_payload_and_fields_at_once_is_a_slip(mesh: Mesh) -> None:
    with pytest.raises(InvalidPayload, match="a payload and the field 'dealy' are both given"):
        await mesh.enqueue("take", {"n": 1}, dealy=5)
    with pytest.raises(InvalidPayload, match="fewer ids than payloads"):
        await mesh.enqueue_many("take", [{"n": 1}, {"n": 2}], ids=["one"])


async def test_one_bad_payload_among_many_names_itself(mesh: Mesh) -> None:
    with pytest.raises(InvalidPayload, match="the payload is a str"):
        await mesh.enqueue_many("take", [{"n": 1}, "n", {"n": 2}])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Agent("Bad Name"), "agent name 'Bad Name'"),
        (lambda: Agent("a", slots=0), "slots=0"),
        (lambda: Agent("a", lease=0.1), "lease=0.1"),
        (lambda: Agent("a").capability("Bad Name")(lambda: None), "capability 'Bad Name'"),
        (lambda: Agent("a").on("two words")(lambda m: None), "message type 'two words'"),
        (lambda: Agent("a").capability("x", retries=-1)(lambda: None), "retries=-1"),
        (lambda: Agent("a").capability("x", timeout=0)(lambda: None), "timeout=0"),
        (lambda: Agent("a").capability("x")(lambda *words: None), "positional"),
        (lambda: Mesh.connect("memory://x", namespace="a{b}"), r"namespace 'a\{b\}'"),
        (lambda: Mesh.connect("memory://x", shards=0), "shards=0"),
    ],
)
def test_names_and_options_that_cannot_work_are_refused_where_they_are_written(make: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


async def test_a_mesh_that_is_not_open_says_what_to_do(namespace: str) -> None:
    mesh = Mesh.connect("memory://unopened", namespace=namespace)
    for call in (lambda: mesh.enqueue("take"), lambda: mesh.agents(), lambda: mesh.send("a", "b")):
        with pytest.raises(ConfigError, match="not open; use `async with"):
            await call()
    await mesh.close()
    with pytest.raises(AttributeError, match="no 'enquue'"):
        mesh.enquue  # type: ignore[attr-defined]  # noqa: B018


# -- results

RESULTS: dict[str, tuple[Any, str]] = {
    "a set": ({1, 2}, "the result is not JSON"),
    "an object": (object(), "the result is not JSON"),
    "NaN": ({"a": [float("nan")]}, "the result holds NaN"),
    "a lone surrogate": ("\udcff", "the result is not JSON"),
    "70 levels": (DEEP, "the result is nested deeper than 64 levels"),
    "over a MiB": ("x" * MIB, "the result has 1048578 bytes"),
}


@pytest.mark.parametrize("isolation", ["inline", "process"])
@pytest.mark.parametrize("case", RESULTS)
async def test_a_result_that_cannot_be_carried_is_a_dead_letter_and_no_retry(
    mesh: Mesh, case: str, isolation: Any
) -> None:
    if isolation == "process" and (mesh.keys.shards > 1 or case not in ("a set", "over a MiB")):
        pytest.skip("one way is enough")
    result, said = RESULTS[case]
    agent = Agent("giver")
    if isolation == "process":
        agent.capability("give", isolation="process", retries=3)(give_a_set if case == "a set" else give_too_much)
    else:

        @agent.capability("give", retries=3)
        async def give() -> Any:
            return result

    task = await mesh.enqueue("give")
    assert (await run_until_idle(mesh, agent)).attempts == 1
    with pytest.raises(TaskDead, match=said):
        await task.result(1)
    assert [letter.reason for letter in await letters(mesh)] == ["invalid_result"]


def give_a_set() -> set[int]:
    return {1, 2}


def give_too_much() -> str:
    return "x" * MIB


# -- capabilities that nobody has


async def test_a_capability_that_nobody_offers_is_waited_for(mesh: Mesh) -> None:
    """A misspelt name and an agent that starts later look alike, so nothing is lost: whoever waits is told in time."""
    with pytest.raises(ResultTimeout, match="no outcome"):
        await mesh.call("tkae", {"n": 1}, timeout=0.1)
    (about,) = await mesh.status.capabilities()
    assert (about.capability, about.waiting, about.agents) == ("tkae", 1, 0)


async def test_a_task_for_an_agent_that_does_not_offer_it_is_a_dead_letter(mesh: Mesh) -> None:
    agent = taker()
    serving = asyncio.create_task(agent.serve(mesh))
    await eventually(mesh.agents)
    task = await mesh.enqueue("sing", {}, to="taker")
    with pytest.raises(TaskDead, match=r"taker.* has no handler for capability 'sing'"):
        await task.result(5)
    agent.stop()
    await serving
    assert [letter.reason for letter in await letters(mesh)] == ["no_capable_agent"]
