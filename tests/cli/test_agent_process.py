"""`agent` as a process: apps, options, signals, bursts, several processes, reload, readiness."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import APP, ROOT, Cli, Process, Spawner
from tests.eventually import eventually_sync


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("tests.cli.shopp:agent", "there is no module 'tests.cli.shopp' in "),
        ("nowhere:agent", "there is no module 'nowhere' in "),
        ("tests.cli.shop:agnt", "has no 'agnt', did you mean agent?; it has the agents tests.cli.shop:agent, tests.cli.shop:other"),
        ("tests.cli.shop:number", "is a int, not an Agent; the module has the agents tests.cli.shop:agent"),
        ("tests.cli.conftest", "has no Agent (make one: agent = Agent"),
        ("tests/cli/shop.py:agent", "--app takes a module, not a file: --app tests.cli.shop:agent"),
        (":agent", "is no app; expected module:agent"),
        ("tests.cli.shop:silent", "agent 'silent' has no handler"),
    ],
)  # fmt: skip
def test_an_app_that_cannot_be_served_is_exit_2(cli: Cli, app: str, says: str) -> None:
    outcome = cli("agent", "--app", app)
    assert (outcome.code, outcome.out) == (2, "")
    assert says in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import nothing_like_it\n", "needs 'nothing_like_it', which is not installed"),
        ("x = 1 /\n", "cannot be imported: SyntaxError: invalid syntax"),
        ("def f():\n    raise KeyError('x')\nf()\n", "cannot be imported: KeyError: 'x'"),
        ("from streammesh import Agent\none, two = Agent('a'), Agent('b')\n", "has the agents {module}:one, {module}:two; say which"),
    ],
)  # fmt: skip
def test_a_module_with_a_fault_is_named_with_its_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str
) -> None:
    module = f"faulty{abs(hash(source))}"
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    outcome = cli("agent", "--app", module)
    assert (outcome.code, outcome.out) == (2, "")
    assert says.format(module=module) in outcome.err
    assert "Traceback" not in outcome.err
    if "cannot be imported" in says:
        assert f"{module}.py:" in outcome.err
        assert "Traceback" in cli("agent", "--app", module, "-v").err


def test_options_take_the_place_of_the_agent_s_own(cli: Cli, spawn: Spawner) -> None:
    spawn("agent", "--app", APP, "--name", "clerk", "--slots", "7", "--lease", "1s", "--grace", "2s").says(" ready ")
    (one,) = cli.ok("agents", "ls", "--json").objects
    assert (one["name"], one["slots"], one["lease"]) == ("clerk", 7, 1.0)
    bad = cli("agent", "--app", APP, "--lease", "0.01")
    assert bad.code == 2
    assert "lease=0.01 is not usable: expected 0.2 to 3600 seconds" in bad.err
    assert "agent name 'No!' is not usable" in cli("agent", "--app", APP, "--name", "No!").err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_drains_and_the_code_says_which(cli: Cli, spawn: Spawner, number: signal.Signals, code: int) -> None:
    agent = spawn("agent", "--app", APP)
    agent.says(" ready ")
    cli.ok("enqueue", "hold", "seconds:=1", "--id", "t")
    eventually_sync(lambda: cli.state("t") == "running")
    agent.send(number)
    assert agent.ends() == code
    assert cli.state("t") == "succeeded"
    assert cli.ok("agents", "ls", "-q").lines == []


def test_a_burst_ends_when_nothing_waits(cli: Cli, spawn: Spawner) -> None:
    for n in range(20):
        cli.ok("enqueue", "greet", "name=x", "--id", f"t{n}", "-q")
    assert spawn("agent", "--app", APP, "--burst").ends() == 0
    assert {cli.state(f"t{n}") for n in range(20)} == {"succeeded"}


def test_several_processes_are_watched_over(cli: Cli, spawn: Spawner, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    parent = spawn("agent", "--app", APP, "--processes", "2", "--ready-file", str(ready))
    parent.says(" ready ", 2)
    agents = {one["id"]: one["pid"] for one in cli.ok("agents", "ls", "--json").objects}
    assert len(agents) == 2
    eventually_sync(ready.exists)
    assert json.loads(ready.read_text())["state"] == "ready"
    os.kill(agents["shop.1"], signal.SIGKILL)
    parent.says("was killed by signal 9; started again in 0.5 s")
    parent.says(" ready ", 3)
    eventually_sync(lambda: set(cli.ok("agents", "ls", "-q").lines) == {"shop.2", "shop.3"})
    cli.ok("call", "greet", "name=x", "-q")
    parent.send(signal.SIGTERM)
    assert parent.ends() == 143
    assert cli.ok("agents", "ls", "-q").lines == []
    assert not ready.exists()


def test_several_apps_have_processes_of_their_own(cli: Cli, spawn: Spawner) -> None:
    parent = spawn("agent", "--app", APP, "--app", "tests.cli.shop:other")
    parent.says(" ready ", 2)
    assert cli.ok("call", "greet", "name=x").json == {"hello": "x"}
    assert cli.ok("call", "other").json != parent.popen.pid
    parent.send(signal.SIGINT)
    assert parent.ends() == 130


def test_a_burst_of_several_processes_ends_with_0(cli: Cli, spawn: Spawner) -> None:
    cli.ok("enqueue", "greet", "name=x", "--id", "t", "-q")
    assert spawn("agent", "--app", APP, "--processes", "2", "--burst").ends() == 0
    assert cli.state("t") == "succeeded"


def test_children_drain_when_their_parent_is_killed(cli: Cli, spawn: Spawner) -> None:
    parent = spawn("agent", "--app", APP, "--processes", "2")
    parent.says(" ready ", 2)
    parent.popen.kill()
    eventually_sync(lambda: cli.ok("agents", "ls", "-q").lines == [], timeout=20)
    kinds = {one["state"] for one in cli.ok("agents", "ls", "--gone", "1h", "--json").objects}
    assert kinds == {"left"}


def test_what_another_start_would_not_change_is_not_tried_again(spawn: Spawner) -> None:
    parent = spawn("agent", "--app", "tests.cli.shop:silent", "--processes", "2")
    assert parent.ends() == 2
    assert "started again" not in parent.err


def test_a_second_signal_stops_at_once(cli: Cli, spawn: Spawner) -> None:
    parent = spawn("agent", "--app", APP, "--processes", "2", "--grace", "60s")
    parent.says(" ready ", 2)
    cli.ok("enqueue", "hold", "seconds:=60", "--id", "t", "-q")
    eventually_sync(lambda: cli.state("t") == "running")
    parent.send(signal.SIGINT)
    parent.says("draining: 1 tasks")
    parent.send(signal.SIGINT)
    assert parent.ends() == 130


APP_SOURCE = """from streammesh import Agent
agent = Agent("fresh", lease=1.0)
@agent.capability("version")
async def version() -> int:
    return {}
"""


def test_reload_starts_anew_when_a_file_changes(cli: Cli, spawn: Spawner, tmp_path: Path) -> None:
    app = tmp_path / "freshapp.py"
    app.write_text(APP_SOURCE.format(1))
    agent = spawn("agent", "--app", "freshapp", "--reload", cwd=tmp_path)
    agent.says(" ready ")
    assert cli.ok("call", "version").json == 1

    def changed() -> bool:
        # The watcher needs a moment to begin: touch the file until it is seen.
        app.write_text(APP_SOURCE.format(2) + f"# {time.monotonic()}\n")
        return "freshapp.py changed: draining" in agent.err

    eventually_sync(changed, timeout=20)
    eventually_sync(lambda: cli("call", "version", "--timeout", "5s", "-q").out.strip() == "2", timeout=20)
    agent.send(signal.SIGTERM)
    assert agent.ends() == 143


def test_a_ready_file_of_one_process(cli: Cli, spawn: Spawner, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    agent = spawn("agent", "--app", APP, "--ready-file", str(ready))
    eventually_sync(ready.exists, timeout=20)
    judged = subprocess.run([sys.executable, "-IS", str(ROOT / "streammesh/health.py"), str(ready)], check=False)
    assert judged.returncode == 0
    agent.send(signal.SIGTERM)
    assert agent.ends() == 143
    assert not ready.exists()


def test_it_waits_for_a_server_that_is_not_there_yet(spawn: Spawner) -> None:
    agent = spawn("-u", "redis://127.0.0.1:1", "agent", "--app", APP)
    agent.says("no answer from redis://127.0.0.1:1")
    agent.send(signal.SIGTERM)
    assert agent.ends() == 143


def test_an_evicting_server_is_refused_unless_unsafe(spawn: Spawner, redis_server_that_evicts: str) -> None:
    agent = spawn("-u", redis_server_that_evicts, "agent", "--app", APP)
    assert agent.ends() == 3
    assert "CONFIG SET maxmemory-policy noeviction" in agent.err
    assert spawn("-u", redis_server_that_evicts, "agent", "--app", APP, "--burst", "--unsafe").ends() == 0


def dev(spawn: Spawner, folder: Path, *more: str) -> Process:
    (folder / "devapp.py").write_text(APP_SOURCE.format(3))
    spawn.environment.pop("STREAMMESH_REDIS_URL")
    spawn.environment.pop("STREAMMESH_NAMESPACE")
    process = spawn("dev", "--app", "devapp", *more, cwd=folder)
    process.says(" ready ", 2)
    return process


def test_dev_is_a_server_and_agents_and_ctrl_c_drains(spawn: Spawner, tmp_path: Path) -> None:
    process = dev(spawn, tmp_path)
    assert f"server     unix://{tmp_path}/.streammesh/valkey.sock" in process.out
    look = next(line for line in process.out.splitlines() if line.startswith("look ")).split(maxsplit=1)[1]
    assert look == f"redis-cli -s {tmp_path}/.streammesh/valkey.sock"
    called = spawn("call", "version", "--id", "kept", cwd=tmp_path)
    assert (called.ends(), called.out) == (0, "3\n")
    process.send(signal.SIGINT)
    assert process.ends() == 130
    assert "Traceback" not in process.err
    eventually_sync(lambda: not (tmp_path / ".streammesh/valkey.sock").exists())
    later = spawn("task", "show", "kept", "-q", cwd=tmp_path)
    assert (later.ends(), later.out) == (0, "succeeded\n")


def test_dev_keeps_nothing_when_asked(spawn: Spawner, tmp_path: Path) -> None:
    process = dev(spawn, tmp_path, "--ephemeral", "--json")
    said = json.loads(process.out)
    assert said["url"].startswith("unix://")
    assert Path(said["data"]).is_dir()
    process.send(signal.SIGTERM)
    assert process.ends() == 143
    assert not Path(said["data"]).exists()
    assert not (tmp_path / ".streammesh").exists()


def test_dev_listens_on_a_port(spawn: Spawner, tmp_path: Path) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = dev(spawn, tmp_path, "--port", str(port), "--agents", "2")
    assert f"server  redis://127.0.0.1:{port}" in process.out
    assert Cli(f"redis://127.0.0.1:{port}", "mesh").ok("agents", "ls", "-q").lines == ["fresh.1", "fresh.2"]
