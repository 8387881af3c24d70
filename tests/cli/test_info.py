"""`info`, `top`, `keys`, `doctor`: numbers that are right, lines that can be pasted, judgements with a cure."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from streammesh.cli.layout import redis_cli
from tests.cli.conftest import APP, Cli, Spawner
from tests.eventually import eventually_sync
from tests.servers import Server

GOLDEN = Path(__file__).parent / "golden"


def test_info_is_the_golden_screen(cli: Cli) -> None:
    for n in range(12):
        cli.ok("enqueue", "email.send", f"n:={n}", "-q")
    for n in range(3):
        cli.ok("enqueue", "email.send", f"n:={n}", "--in", "1h", "-q")
    cli.ok("enqueue", "report.build", "--priority", "high", "-q")
    cli.ok("enqueue", "urgent", "--priority", "high", "-q")
    cli.ok("enqueue", "urgent", "--priority", "low", "-q")
    cli.ok("caps", "pause", "urgent", "--by", "ada")
    screen = cli.ok("info").out
    for pattern, instead in [
        (re.escape(cli.namespace), "mesh"),
        (r"127\.0\.0\.1:\d+", "localhost:6379"),
        (r"valkey [\d.]+", "valkey 9.1.2"),
        (r"up [\dhms]+", "up 3h00m"),
        (r"[\d.]+s(  +0\.0)", r"#s\1"),
        (r"in 59m\d\ds|in 1h00m", "in 1h00m"),
    ]:
        screen = re.sub(pattern, instead, screen)
    # The age of the oldest is a matter of milliseconds: the column keeps its place, the figure does not matter.
    screen = re.sub(r" +#s", "      #s", screen)
    assert screen == (GOLDEN / "info.txt").read_text()


def test_info_of_an_empty_mesh_says_how_to_begin(cli: Cli) -> None:
    text = cli.ok("info").out
    assert "0 agents ready" in text
    assert "nothing here yet: start an agent" in text


def test_the_numbers_are_those_of_redis_cli(shop: Cli) -> None:
    for n in range(5):
        shop.ok("enqueue", "hold", "seconds:=60", "--id", f"n{n}", "-q")
    eventually_sync(lambda: shop.ok("info", "--sample", "0", "--json").json["capabilities"]["hold"]["running"] == 2)
    seen = shop.ok("info", "--json", "--sample", "100ms").json
    hold = seen["capabilities"]["hold"]
    stream = f"{{{shop.namespace}}}:tasks:hold"
    unfinished, pending = shop.redis("XLEN", stream), shop.redis("XPENDING", stream, "agents")["pending"]
    assert (hold["waiting"], hold["running"]) == (unfinished - pending, pending) == (3, 2)
    assert (hold["agents"], hold["dead"], hold["delayed"]) == (1, 0, 0)
    assert hold["oldest_seconds"] > 0
    assert (seen["agents"], seen["mesh"]) == ({"ready": 1}, shop.namespace)
    assert hold["in_per_second"] == hold["out_per_second"] == 0
    for n in range(5):
        shop("task", "cancel", f"n{n}")


def test_rates_are_measured(shop: Cli, spawn: Spawner) -> None:
    lines = '{"name": "x"}\n' * 200
    busy = spawn("-u", shop.url, "-N", shop.namespace, "top", "--json", "--interval", "200ms", "--count", "40")

    def rated() -> bool:
        shop.ok("enqueue", "greet", "--lines", stdin=lines)
        return bool(re.search(r'"greet": [^}]*"in_per_second": [1-9][^}]*"out_per_second": [1-9]', busy.out))

    eventually_sync(rated, timeout=8)


def test_top_without_a_terminal_is_a_table_for_each_look(shop: Cli) -> None:
    text = shop.ok("top", "--interval", "100ms", "--count", "2").out
    assert text.count("CAPABILITY  WAITING") == 2
    assert re.search(r"shop\.1 +ready +\d/2  [█·]{16}  greet", text)
    assert len(shop.ok("top", "--interval", "100ms", "--count", "2", "--json").objects) == 2


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="no redis-cli on this machine")
def test_every_line_that_keys_prints_works(shop: Cli) -> None:
    shop.ok("call", "greet", "name=x")
    listed = shop.ok("keys", "--json").objects
    kinds = {one["key"]: one["type"] for one in listed if "key" in one}
    assert kinds[f"{{{shop.namespace}}}:tasks:<capability>"] == "STREAM"
    lines = [line for one in listed for line in one["lines"]]
    assert len(lines) >= 20
    text = shop.ok("keys").out
    assert all(line in text for line in lines if "replies" not in line)
    for line in lines:
        ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=20)
        assert ran.returncode == 0, line
        assert not ran.stdout.startswith(("ERR", "WRONGTYPE", "(error)")), (line, ran.stdout)
    assert shop.ok("keys", "dead", "-q").lines == [f"{{{shop.namespace}}}:dead:<capability>"]


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("redis://localhost:6379", "redis-cli"),
        ("redis://127.0.0.1:7000/3", "redis-cli -h 127.0.0.1 -p 7000 -n 3"),
        ("redis://ada:secret@cache.example:6380/0?db=2", "redis-cli -h cache.example -p 6380 --user ada -n 2"),
        ("rediss://:secret@cache.example", "redis-cli -h cache.example --tls"),
        ("unix:///run/a b.sock?db=1", "redis-cli -s '/run/a b.sock' -n 1"),
        ("memory://x", ""),
    ],
)
def test_the_redis_cli_call_fits_the_url_and_holds_no_password(
    url: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "redis-cli" else None)
    assert redis_cli(url) == line


def test_a_mesh_in_memory_has_no_redis_cli() -> None:
    cli = Cli("memory://cli-test", "mesh")
    outcome = cli("keys")
    assert outcome.code == 0
    assert "redis-cli cannot reach it" in outcome.err
    assert "fakeredis" in cli.ok("info", "--sample", "0").out
    assert cli("doctor").code == 0
    assert cli.ok("enqueue", "greet", "--id", "a", "-q").out == "a\n"


def verdicts(cli: Cli, url: str | None = None) -> tuple[int, dict[str, tuple[str, str, str]]]:
    outcome = cli("doctor", "--json", url=url)
    found = {one["subject"]: (one["verdict"], one["text"], one["cure"]) for one in outcome.json["findings"]}
    assert outcome.json["healthy"] == (outcome.code == 0)
    return outcome.code, found


def test_a_healthy_mesh(shop: Cli) -> None:
    code, found = verdicts(shop)
    assert code == 0
    assert found["durability"][:2] == (
        "ok",
        "append-only file, fsync every second: a power cut may lose the last second",
    )
    assert found["eviction"][0] == found["agents"][0] == found["sweep"][0] == found["streams"][0] == "ok"
    assert set(found) >= {"python", "redis-py", "hiredis", "server", "clock", "latency", "clients", "memory"}
    outcome = shop("doctor")
    assert "✔ eviction" in outcome.out
    assert outcome.err == "healthy\n"
    assert "✔" not in shop("doctor", "-q").out


def test_a_server_that_would_lose_work(cli: Cli, redis_server_that_evicts: str) -> None:
    code, found = verdicts(cli, redis_server_that_evicts)
    assert code == 1
    assert found["eviction"][0] == "fault"
    assert found["eviction"][2] == "CONFIG SET maxmemory-policy noeviction"
    assert found["durability"][0] == "fault"
    assert "CONFIG SET appendonly yes" in found["durability"][2]
    text = cli("doctor", url=redis_server_that_evicts)
    assert text.code == 1
    assert "✘ eviction" in text.out
    assert "→ CONFIG SET maxmemory-policy noeviction" in text.out
    assert "2 faults" in text.err


def test_a_server_that_is_away(cli: Cli) -> None:
    code, found = verdicts(cli, "redis://127.0.0.1:1")
    assert (code, found["server"][0]) == (3, "fault")


def test_a_replica(cli: Cli, url: str, tmp_path: Path) -> None:
    replica = Server("valkey", tmp_path, {"replicaof": f"127.0.0.1 {url.rpartition(':')[2].partition('/')[0]}"})
    replica.start()
    try:
        eventually_sync(lambda: "role" in verdicts(cli, replica.url)[1])
        code, found = verdicts(cli, replica.url)
        assert (code, found["role"][0], found["role"][2]) == (1, "fault", "give the URL of the primary")
    finally:
        replica.stop()


def test_work_that_nobody_will_do(cli: Cli, spawn: Spawner) -> None:
    cli.ok("enqueue", "greet", "-q")
    cli.redis("XADD", f"{{{cli.namespace}}}:tasks:typo", "*", "payload", "{}")
    code, found = verdicts(cli)
    assert code == 1
    assert found["nobody"][:2] == ("fault", "1 waiting for greet, which no live agent offers")
    assert found["agents"][0] == "note"
    assert f"{{{cli.namespace}}}:tasks:typo belongs to no capability" in found["stream"][1]
    agent = spawn("agent", "--app", APP)
    agent.says(" ready ")
    cli.ok("enqueue", "hold", "seconds:=60", "--id", "t")
    eventually_sync(lambda: cli.state("t") == "running")
    agent.popen.kill()
    eventually_sync(lambda: "orphans" in verdicts(cli)[1])
    verdict, text, cure = verdicts(cli)[1]["orphans"]
    assert (verdict, "held by shop.1, which is not alive" in text) == ("fault", True)
    assert cure == "start an agent that offers hold"


def test_a_stream_without_its_group(cli: Cli) -> None:
    cli.ok("enqueue", "greet", "-q")
    stream = f"{{{cli.namespace}}}:tasks:greet"
    cli.redis("XGROUP", "DESTROY", stream, "agents")
    code, found = verdicts(cli)
    assert (code, found["group"][0]) == (1, "fault")
    assert f"XGROUP CREATE '{stream}' agents 0" in found["group"][2]
