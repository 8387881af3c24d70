"""Runs: workflows and steps a second, how long steps take, what a parked run weighs, how late timers are, takeover."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from ops.bench import clients, flows
from ops.bench.figures import Figure
from ops.bench.process import Child, Server, until
from ops.bench.size import Size
from streammesh import Mesh, Run, codec
from streammesh.execution import Execution
from streammesh.keys import Keys

__all__ = ["measure", "parked", "takeover", "timers"]

Say = Callable[[str], None]


@contextmanager
def _serving(agents: int, **options: Any) -> Iterator[tuple[Server, list[Child]]]:
    """A server, and agents that are ready."""
    with Server() as server:
        children = [server.child("flows-agent", **options) for _ in range(agents)]
        for child in children:
            child.ready().say("go")
        until(lambda: asyncio.run(clients.ready(server.url)) == agents, 30.0, "the agents are ready", pause=0.1)
        yield server, children


def _flows(server: Server, **options: Any) -> Any:
    child = server.child("flows", **options).ready()
    child.say("go")
    return child.hear(180.0)


def measure(size: Size, say: Say) -> list[Figure]:
    """Speed."""
    found: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for turn in range(size.rounds):
        say(f"runs, round {turn + 1} of {size.rounds}")
        with _serving(2) as (server, _):
            said = _flows(server, workflow="chain", steps=1, count=size.flows, at_once=256)
            add("one-step workflows", size.flows / said["seconds"])
        with _serving(1) as (server, _):
            chains = _flows(server, workflow="chain", steps=10, count=size.chains, at_once=1)["took"]
            add("chain of ten remote steps, p50", median(chains))
            add("one sequential remote step, p50", median(chains) / 10)
            said = _flows(server, workflow="local", steps=20, count=size.flows // 10, at_once=64)
            add("local steps over many runs", size.flows // 10 * 20 / said["seconds"])
            for name, workflow in (("gather", "spread"), ("map", "mapped")):
                took, claims = [], []
                for _ in range(3):
                    before = _claims(server)
                    # Two runs: the first one warms up.
                    said = _flows(server, workflow=workflow, steps=size.fan, count=1, at_once=1)
                    took.append(said["took"][0] / 1000)
                    claims.append(_claims(server) - before)
                add(f"{name} of {size.fan:,}", median(took))
                add(f"claims of the run in a {name} of {size.fan:,}", median(claims) / 2)
        add("replay of a journal of 1,000 records", _replay())
        say("    " + ", ".join(f"{name} {values[-1]:,.3g}" for name, values in found.items()))
    fan = f"{size.fan:,}"
    return [
        Figure.at_least("one-step workflows", "/s", found["one-step workflows"], 1000),
        Figure.at_most("chain of ten remote steps, p50", "ms", found["chain of ten remote steps, p50"], 25),
        Figure.at_most("one sequential remote step, p50", "ms", found["one sequential remote step, p50"], 3),
        Figure.at_least("local steps over many runs", "/s", found["local steps over many runs"], 5000),
        Figure.at_most(f"gather of {fan} calls", "s", found[f"gather of {fan}"], 0.8),
        Figure.at_most(f"claims of the run in a gather of {fan}", "", found[f"claims of the run in a gather of {fan}"], 140),
        Figure.shown(f"map of {fan} calls", "s", found[f"map of {fan}"]),
        Figure.at_most(f"claims of the run in a map of {fan}", "", found[f"claims of the run in a map of {fan}"], 5),
        Figure.at_most("replay of a journal of 1,000 records", "ms", found["replay of a journal of 1,000 records"], 30),
    ]  # fmt: skip


def _claims(server: Server) -> int:
    """How often runs have been claimed so far."""
    keys = [key for key in server.client.scan_iter("{mesh}:run:*", count=1000) if not key.endswith(":journal")]
    return sum(int(server.client.hget(key, "attempt") or 0) for key in keys)


def _replay() -> float:
    """Milliseconds for a journal of 1,000 records: 499 calls, one after the other."""

    async def steps(run: Run, count: int) -> int:
        for n in range(count):
            await run.call("noop", n=n)
        return count

    at = "2026-01-01T00:00:00.000Z"
    records: list[dict[str, Any]] = [
        {"what": "start", "workflow": "w", "version": 1, "input": {"count": 499}, "at": at}
    ]
    for n in range(499):
        records.append({"what": "call", "path": f"noop.{n}", "name": "noop", "payload": {"n": n}, "after": n})
        records.append({"what": "done", "of": f"noop.{n}", "result": n, "at": at})
    texts = [codec.encode(record).decode() for record in records]
    keys = Keys("mesh")
    took = []
    for _ in range(5):
        execution = Execution("r", lambda execution, input: steps(Run(execution, keys), **input))
        began = time.perf_counter()
        execution.load(texts)
        took.append((time.perf_counter() - began) * 1000)
        assert execution.done, "the replay comes to the end"
        execution.close()
    return median(took)


def _states(server: Server, ids: list[str]) -> set[str]:
    """The states in which these runs are."""
    with server.client.pipeline(transaction=False) as pipe:
        for id in ids:
            pipe.hget(f"{{mesh}}:run:{id}", "state")
        return set(pipe.execute())


def parked(size: Size, say: Say) -> list[Figure]:
    """Bytes of a parked run of four records, and whether all go on."""
    say(f"parked: {size.parked:,} runs")
    ids = [f"r{n}" for n in range(size.parked)]
    with _serving(1) as (server, agents):
        asyncio.run(flows.start(server.url, "parked", ["warm-up"], {}))
        until(lambda: _states(server, ["warm-up"]) == {"parked"}, 30.0, "one run is parked")
        resident = agents[0].resident
        for at in range(0, len(ids), 500):
            asyncio.run(flows.start(server.url, "parked", ids[at : at + 500], {}))
        until(lambda: _states(server, ids) == {"parked"}, 300.0, "all are parked", pause=0.3)
        sample = ids[:: max(1, len(ids) // 200)]
        usage = [
            sum(int(server.client.memory_usage(f"{{mesh}}:run:{id}{part}", samples=0)) for part in ("", ":journal"))  # type: ignore[arg-type,misc]
            for id in sample
        ]
        due = int(server.client.memory_usage("{mesh}:due", samples=0)) / len(ids)  # type: ignore[arg-type]
        grown = (agents[0].resident - resident) * 1e6 / len(ids)
        results = asyncio.run(flows.finish(server.url, ids, signal="go"))
        assert results == [1] * len(ids)
    return [
        Figure.at_most("a parked run of 4 records, in the server", "bytes", [median(usage) + due], 1600),
        Figure.shown("the same, in the agent", "bytes", [max(0.0, grown)]),
    ]


def timers(size: Size, say: Say) -> list[Figure]:
    """How late runs are told of timers that are due in one second."""
    say(f"timers: {size.timers:,} due in one second")
    lead = 3 + size.timers / 500
    with _serving(2) as (server, _):
        first = time.time() + lead
        ids = [f"t{n}" for n in range(size.timers)]

        async def start() -> None:
            async with Mesh.connect(server.url, name="bench-start") as mesh:
                for at in range(0, len(ids), 1000):
                    await asyncio.gather(
                        *(
                            mesh.start("timed", {"until": first + n / len(ids)}, id=ids[n])
                            for n in range(at, min(at + 1000, len(ids)))
                        )
                    )

        asyncio.run(start())
        until(lambda: server.client.zcard("{mesh}:due") == len(ids) or time.time() >= first, lead, "all timers are set")
        until(
            lambda: server.client.zcard("{mesh}:due") == 0 and time.time() > first + 1,
            120.0,
            "all timers have fired",
            pause=0.1,
        )
        asyncio.run(flows.finish(server.url, ids))
        late, ended, twice = [], [], 0
        with server.client.pipeline(transaction=False) as pipe:
            for id in ids:
                pipe.lrange(f"{{mesh}}:run:{id}:journal", 0, -1)
            journals = pipe.execute()
        for journal in journals:
            records = [codec.decode(text) for text in journal]
            fired = [record for record in records if record["what"] == "fired"]
            due = next(record["due"] for record in records if record["what"] == "timer")
            twice += len(fired) != 1
            late.append(datetime.fromisoformat(fired[0]["at"]).timestamp() * 1000 - due)
            ended.append(datetime.fromisoformat(records[-1]["at"]).timestamp() * 1000 - due)
    say(f"    p50 {median(late):.0f} ms, p99 {quantiles(late, n=100)[98]:.0f} ms")
    return [
        Figure.at_most(f"lateness of {size.timers:,} timers in one second, p99", "ms", [max(0.0, quantiles(late, n=100)[98])], 250),
        Figure.shown("from due to the end of its run, p99", "ms", [quantiles(ended, n=100)[98]]),
        Figure.at_most("timers not fired just once", "", [twice], 0),
    ]  # fmt: skip


def _until_lines(ledger: Path, count: int) -> None:
    until(
        lambda: ledger.exists() and len(ledger.read_text().splitlines()) > count, 60.0, "runs are on their way"
    )  # fmt: skip


def takeover(size: Size, say: Say) -> list[Figure]:
    """Seconds from SIGKILL of the executing agent until each of its runs goes on, and what ran again: where agents may see who is connected, and where they may not."""
    lease, figures, again = 2.0, [], 0
    for looks, most, how in ((True, 1.5, ""), (False, lease + 1, ", without CLIENT LIST")):
        found: list[float] = []
        for turn in range(size.takeovers):
            say(f"takeover{how}, round {turn + 1} of {size.takeovers}: lease {lease:g} s")
            took, more = _take_over(size, lease, looks)
            say(f"    {len(took)} runs, the last one after {max(took):.2f} s")
            found += took
            again += more
        figures += [
            Figure.at_most(f"takeover of a run, lease 2 s, p99{how}", "s", [quantiles(found, n=100)[98]], most),
            Figure.shown(f"takeover of a run, lease 2 s, p50{how}", "s", [median(found)]),
        ]
    return [*figures, Figure.at_most("completed steps that ran again", "", [again], 0)]


def _take_over(size: Size, lease: float, looks: bool) -> tuple[list[float], int]:
    """(seconds until each run of the killed agent went on, completed steps that ran again)."""
    with Server() as server:
        if not looks:
            server.client.execute_command("ACL", "SETUSER", "default", "-client|list")
        ledger = Path(server.folder) / "ledger"
        first, second = (server.child("flows-agent", lease=lease, ledger=str(ledger)) for _ in range(2))
        first.ready().say("go")
        until(lambda: asyncio.run(clients.ready(server.url)) == 1, 30.0, "the agent is ready", pause=0.1)
        ids = [f"r{n}" for n in range(size.chained)]
        asyncio.run(flows.start(server.url, "noted", ids, {"steps": 100}))
        second.ready().say("go")
        until(lambda: asyncio.run(clients.ready(server.url)) == 2, 30.0, "the other is ready", pause=0.05)
        _until_lines(ledger, 5 * size.chained)
        # Agents know each other after a few looks at who is connected.
        time.sleep(2.5)
        held = {id for id in ids if server.client.hget(f"{{mesh}}:run:{id}", "agent") == "flows.1"}
        killed = time.monotonic()
        first.kill()
        recorded = {
            f"{id}.{number}"
            for id in ids
            for number in range(
                sum('"what":"step"' in text for text in server.client.lrange(f"{{mesh}}:run:{id}:journal", 0, -1))
            )
        }
        asyncio.run(flows.finish(server.url, ids))
        lines = [line.split() for line in ledger.read_text().splitlines()]
        times = Counter(name for name, _ in lines)
        resumed: dict[str, float] = {}
        for name, at in lines:
            if float(at) > killed:
                resumed.setdefault(name.partition(".")[0], float(at) - killed)
        again = sum(times[name] - 1 for name in recorded)
        return [resumed[id] for id in held if id in resumed], again
