"""Is this server, this mesh and this client fit for work? Findings, each with its cure. Read-only."""

from __future__ import annotations

import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from streammesh.keys import GROUP, LANES, Keys
from streammesh.moments import duration
from streammesh.registry import Registry
from streammesh.runlist import RunList
from streammesh.schedules import Schedules
from streammesh.status import Overview, Status, fields_of
from streammesh.store import Store

__all__ = ["Finding", "examine_client", "examine_mesh", "examine_server"]

Verdict = Literal["ok", "note", "fault"]

#: Keys that are looked at for streams that no agent knows.
SCANNED = 50_000


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is (`note`: should be known, `fault`: must be mended), and what helps."""

    subject: str
    verdict: Verdict
    text: str
    cure: str = ""


def examine_client() -> list[Finding]:
    """This process: interpreter and libraries."""
    found = [Finding("python", "ok", platform.python_version())]
    client = metadata.version("redis")
    major = int(client.split(".")[0])
    found.append(
        Finding("redis-py", "ok", client)
        if major == 8
        else Finding("redis-py", "fault", f"{client} is not tested", "pip install 'redis[hiredis]>=8.1,<9'")
    )
    for name, verdict, lack, cure in (
        ("hiredis", "note", "not installed: replies are parsed in Python, several times slower", "pip install hiredis"),
        ("uvloop", "ok", "not installed: agents use asyncio's own loop", "pip install 'streammesh[fast]'"),
    ):
        try:
            found.append(Finding(name, "ok", metadata.version(name)))
        except metadata.PackageNotFoundError:
            found.append(Finding(name, "note" if verdict == "note" else "ok", lack, cure))
    return found


async def examine_server(store: Store) -> list[Finding]:
    """The server: version, role, memory, durability, clients, clock, latency."""
    if not store.genuine:
        return [Finding("server", "note", f"{store.where} lives in this process only", "use it for tests")]
    said: str = await store.command("INFO")
    info = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    config = await _config(store)
    return [
        *_version(info, store.where),
        *_memory(info, config),
        *_durability(info, config),
        *_clients(info, config),
        *await _clock(store),
    ]


async def _config(store: Store) -> dict[str, str]:
    names = (
        "appendfsync",
        "timeout",
        "maxclients",
        "maxmemory-clients",
        "requirepass",
        "protected-mode",
        "bind",
        "port",
    )
    replies = await store.commands([("CONFIG", "GET", name) for name in names])
    # Hosted servers often forbid CONFIG; what cannot be read is not judged.
    return {
        name: str(fields_of(reply).get(name, ""))
        for name, reply in zip(names, replies, strict=True)
        if fields_of(reply)
    }


def _version(info: dict[str, str], where: str) -> list[Finding]:
    flavour = "valkey" if "valkey_version" in info else "redis"
    version = info.get("valkey_version") or info.get("redis_version", "0")
    floor = 8 if flavour == "valkey" else 7
    text = f"{flavour} {version} at {where}"
    found = [
        Finding("server", "ok", text)
        if int(version.split(".")[0]) >= floor
        else Finding("server", "fault", f"{text} is too old", "upgrade to Redis 7.0 or Valkey 8, or newer")
    ]
    if info.get("role") != "master":
        found.append(
            Finding("role", "fault", f"it is a {info.get('role')}: writes are refused", "give the URL of the primary")
        )
    if info.get("loading", "0") != "0":
        found.append(Finding("loading", "fault", "the server is still loading its data", "wait until it is done"))
    return found


def _memory(info: dict[str, str], config: dict[str, str]) -> list[Finding]:
    policy = info.get("maxmemory_policy", "noeviction")
    found = [
        Finding("eviction", "ok", "noeviction: accepted tasks are never dropped")
        if policy == "noeviction"
        else Finding("eviction", "fault", f"maxmemory-policy {policy} deletes tasks in silence when memory runs out", "CONFIG SET maxmemory-policy noeviction")
    ]  # fmt: skip
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    shown = info.get("used_memory_human", "?")
    if not limit:
        found.append(Finding("memory", "note", f"{shown} used, no limit: a full machine would kill the server", "CONFIG SET maxmemory, to what the machine can spare"))  # fmt: skip
    else:
        share = used / limit
        verdict: Verdict = "fault" if share > 0.95 else "note" if share > 0.8 else "ok"
        cure = "" if verdict == "ok" else "finish or remove waiting work, shorten retention, or raise maxmemory"
        found.append(
            Finding("memory", verdict, f"{shown} of {info.get('maxmemory_human', '?')} used ({share:.0%})", cure)
        )
    if config.get("maxmemory-clients", "0") not in ("0", ""):
        found.append(Finding("client eviction", "note", f"maxmemory-clients {config['maxmemory-clients']}: the server may cut agents off to save memory", "CONFIG SET maxmemory-clients 0"))  # fmt: skip
    return found


def _durability(info: dict[str, str], config: dict[str, str]) -> list[Finding]:
    if info.get("aof_enabled") != "1":
        return [Finding("durability", "fault", "no append-only file: a crash of the server loses what came after its last snapshot", "CONFIG SET appendonly yes, and in its configuration file")]  # fmt: skip
    sync = config.get("appendfsync", "everysec")
    levels: dict[str, tuple[Verdict, str, str]] = {
        "always": ("ok", "append-only file, fsync always: an accepted task survives a power cut", ""),
        "everysec": ("ok", "append-only file, fsync every second: a power cut may lose the last second", ""),
        "no": ("note", "append-only file, fsync left to the kernel: a power cut may lose half a minute", "CONFIG SET appendfsync everysec"),
    }  # fmt: skip
    verdict, text, cure = levels.get(sync, ("note", f"appendfsync {sync}", ""))
    found = [Finding("durability", verdict, text, cure)]
    if info.get("aof_last_write_status", "ok") != "ok":
        found.append(
            Finding(
                "durability",
                "fault",
                "the last write to the append-only file failed",
                "look at the disk, and at the server's log",
            )
        )
    return found


def _clients(info: dict[str, str], config: dict[str, str]) -> list[Finding]:
    now, most = int(info.get("connected_clients", 0)), int(config.get("maxclients") or info.get("maxclients") or 10000)
    crowded = now > 0.8 * most
    found = [
        Finding(
            "clients",
            "note" if crowded else "ok",
            f"{now} of {most} connections",
            "raise maxclients" if crowded else "",
        )
    ]
    if config.get("timeout", "0") not in ("0", ""):
        found.append(Finding("idle timeout", "note", f"the server cuts idle connections after {config['timeout']} s; agents connect anew each time", "CONFIG SET timeout 0"))  # fmt: skip
    exposed = (
        config.get("protected-mode") == "no" and config.get("requirepass", "x") == "" and config.get("port") != "0"
    )
    bound = config.get("bind", "127.0.0.1").replace("-::1", "").split()
    if exposed and any(not address.startswith(("127.", "::1")) for address in bound or ["*"]):
        found.append(Finding("access", "note", "no password, and it listens beyond this machine: whoever reaches the port may do anything", "CONFIG SET requirepass, or bind 127.0.0.1"))  # fmt: skip
    return found


async def _clock(store: Store) -> list[Finding]:
    trips, offsets = [], []
    for _ in range(11):
        sent, began = time.time(), time.perf_counter()
        seconds, micros = await store.command("TIME")
        trip = time.perf_counter() - began
        trips.append(trip)
        offsets.append(int(seconds) + int(micros) / 1e6 - (sent + trip / 2))
    trip, offset = statistics.median(trips), statistics.median(offsets)
    far = abs(offset) > 1.0
    slow = trip > 0.01
    return [
        Finding("clock", "note" if far else "ok", f"the server's is {abs(offset):.3f} s {'ahead' if offset > 0 else 'behind'}", "synchronise clocks (NTP): times given by --at and at= are judged by the server's" if far else ""),
        Finding("latency", "note" if slow else "ok", f"{trip * 1000:.2f} ms there and back", "move agents nearer to the server" if slow else ""),
    ]  # fmt: skip


async def examine_mesh(store: Store, keys: Keys) -> list[Finding]:
    """The mesh: agents, sweep, what waits for nobody, streams and consumers that are out of order."""
    seen = await Status(store, keys).overview()
    return [
        *_agents(seen),
        *await _sweep(store, keys, seen),
        *_work(seen),
        *await _runs(store, keys),
        *await _schedules(store, keys, seen),
        *await _streams(store, keys, seen),
    ]


def _agents(seen: Overview) -> list[Finding]:
    states = ", ".join(f"{count} {state}" for state, count in sorted(seen.states().items()))
    if not seen.agents:
        return [Finding("agents", "note", "none is alive", "streammesh agent --app MODULE:AGENT")]
    return [Finding("agents", "ok", states)]


async def _sweep(store: Store, keys: Keys, seen: Overview) -> list[Finding]:
    found = []
    ticks = [await store.command("HGET", f"{keys.prefix(shard)}sweep", "tick") for shard in range(keys.shards)]
    late = [(seen.now_ms - float(tick)) / 1000 for tick in ticks if tick]
    if seen.agents and (not late or max(late) > 30):
        text = f"last sweep {duration(max(late))} ago" if late else "never swept"
        found.append(Finding("sweep", "fault", f"{text}, though agents are alive: work of the dead does not move", "look at the agents' logs; restart one"))  # fmt: skip
    elif late:
        found.append(Finding("sweep", "ok", f"{duration(max(late))} ago"))
    overdue = [
        (seen.now_ms - float(head[1])) / 1000
        for shard in range(keys.shards)
        if (head := await store.command("ZRANGE", keys.due(shard), 0, 0, "WITHSCORES"))
    ]
    if overdue and max(overdue) > 5:
        found.append(Finding("delayed work", "fault" if seen.agents else "note", f"due since {duration(max(overdue))} and not queued", "look at the agents' logs" if seen.agents else "start an agent: any agent queues what is due"))  # fmt: skip
    return found


def _work(seen: Overview) -> list[Finding]:
    found = []
    for one in seen.capabilities:
        if one.waiting and not one.agents:
            found.append(Finding("nobody", "fault", f"{one.waiting} waiting for {one.capability}, which no live agent offers", f"start an agent with {one.capability}, or look for a typo in the name"))  # fmt: skip
        elif one.waiting and one.paused_by:
            found.append(Finding("paused", "note", f"{one.waiting} waiting for {one.capability}, paused by {one.paused_by}", f"streammesh caps resume {one.capability}"))  # fmt: skip
        if one.dead:
            found.append(Finding("dead letters", "note", f"{one.dead} of {one.capability}", f"streammesh dead ls --capability {one.capability}"))  # fmt: skip
    return found or [Finding("work", "ok", "nothing waits for nobody, no dead letters")]


async def _runs(store: Store, keys: Keys) -> list[Finding]:
    """Runs that do not move by themselves; nothing where there are none."""
    seen = await RunList(store, keys).numbers()
    found = [
        Finding("nobody", "fault", f"{count} runs wait for {name}, which no live agent has", f"start an agent with {name.replace('@', ' version ')}, or look for a typo in the name")
        for name, count in seen.nobody.items()
    ]  # fmt: skip
    if seen.states["stuck"]:
        found.append(Finding("stuck runs", "fault", f"{seen.states['stuck']}: their code does not fit their journal, or kills its agents", "streammesh run ls --status stuck"))  # fmt: skip
    if seen.states["paused"]:
        found.append(Finding("paused runs", "note", f"{seen.states['paused']}", "streammesh run ls --status paused"))
    if seen.any and not found:
        found.append(Finding("runs", "ok", ", ".join(f"{count} {state}" for state, count in seen.states.items() if count)))  # fmt: skip
    return found


async def _schedules(store: Store, keys: Keys, seen: Overview) -> list[Finding]:
    """Schedules that start what nobody does; nothing where there are none."""
    room = Schedules(store, keys)
    found = [
        Finding("nobody", "fault", f"schedule {one.name} starts the {one.kind} {one.target}, which no live agent has", f"start an agent with {one.target}, or streammesh schedule pause {one.name}")
        for one in await room.unserved(seen.agents)
    ]  # fmt: skip
    states = Counter(one.state for one in await room.all())
    if states and not found:
        found.append(Finding("schedules", "ok", ", ".join(f"{count} {state}" for state, count in sorted(states.items()))))  # fmt: skip
    return found


async def _streams(store: Store, keys: Keys, seen: Overview) -> list[Finding]:
    found: list[Finding] = []
    known = {
        keys.tasks(one.capability, lane, shard): one.capability
        for one in seen.capabilities
        for lane in LANES
        for shard in range(keys.shards)
    }
    live = {agent.id for agent in (await Registry(store, keys).agents())}
    offered = {one.capability for one in seen.capabilities if one.agents}
    streams = list(known)
    consumers = await store.commands([("XINFO", "CONSUMERS", stream, GROUP) for stream in streams])
    lengths = await store.commands([("XLEN", stream) for stream in streams])
    for stream, reply, length in zip(streams, consumers, lengths, strict=True):
        if isinstance(reply, Exception):
            if length and "NOGROUP" in str(reply):
                found.append(Finding("group", "note" if known[stream] in offered else "fault", f"{stream} has no group {GROUP!r}", f"redis-cli XGROUP CREATE '{stream}' {GROUP} 0 (an agent that offers it does so by itself)"))  # fmt: skip
            continue
        for consumer in map(fields_of, reply):
            if consumer["name"] not in live and int(consumer["pending"]):
                mended = known[stream] in offered
                found.append(Finding("orphans", "note" if mended else "fault", f"{consumer['pending']} of {stream} held by {consumer['name']}, which is not alive", "the next sweep moves them" if mended else f"start an agent that offers {known[stream]}"))  # fmt: skip
    for stream in await _unlisted(store, keys, known.__contains__):
        found.append(Finding("stream", "note", f"{stream} belongs to no capability that was ever offered", "start an agent that offers it, or look for a typo in the XADD"))  # fmt: skip
    return found or [
        Finding("streams", "ok", f"{sum(1 for length in lengths if length)} with work, groups and consumers in order")
    ]


async def _unlisted(store: Store, keys: Keys, listed: Callable[[str], Any]) -> list[str]:
    """Streams of tasks that only a bare XADD knows of, among the first keys that a scan finds."""
    found: list[str] = []
    for shard in range(keys.shards):
        cursor, looked = "0", 0
        while looked < SCANNED:
            cursor, some = await store.command("SCAN", cursor, "MATCH", f"{keys.prefix(shard)}tasks:*", "COUNT", 1000)
            found += [key for key in some if not listed(key)]
            looked += 1000
            if cursor == "0":
                break
    return sorted(set(found))
