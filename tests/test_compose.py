"""compose.yaml is valid for the real Compose, says what it must, and its commands work as plain processes.

No Docker engine is needed: Compose itself comes in a wheel and resolves the file; what it resolves to is checked, and
then started without containers: the same commands, as many replicas, the same probes, the same way to stop.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from streammesh import sync
from tests.eventually import eventually_sync
from tests.servers import Server

ROOT = Path(__file__).resolve().parents[1]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMMESH_", "COMPOSE_"))}
DRAINED = 143  # the exit code of an agent that was terminated and has handed back or finished all it held


def compose(
    *arguments: str, file: Path = ROOT / "compose.yaml", environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """Run Compose on `file` with nothing but `environment` to fill in."""
    wheel = Path(sys.executable).with_name("docker-compose")
    program = [str(wheel)] if wheel.exists() else ["docker", "compose"]
    if not wheel.exists() and shutil.which("docker") is None:
        pytest.skip("no Compose on this machine")
    command = [*program, "--project-directory", str(ROOT), "--file", str(file), *arguments]
    return subprocess.run(
        command, env={**CLEAN, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def resolve(**environment: str) -> dict[str, Any]:
    done = compose("config", "--format", "json", environment=environment)
    assert done.returncode == 0, done.stderr
    resolved: dict[str, Any] = json.loads(done.stdout)
    return resolved


@pytest.fixture(scope="module")
def resolved() -> dict[str, Any]:
    return resolve()


@pytest.fixture(scope="module")
def agents(resolved: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services that are agents."""
    return {name: service for name, service in resolved["services"].items() if name != "valkey"}


def option(service: dict[str, Any], name: str) -> str:
    """What `name` is set to on the service's command line."""
    command: list[str] = service["command"]
    return command[command.index(name) + 1]


def seconds(duration: str) -> float:
    """Compose's own way to write a duration, as in 1m30s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))


def test_compose_accepts_the_file() -> None:
    done = compose("config", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("key", ["stop_grace_period", "replicas", "healthcheck", "read_only", "cap_drop", "test"])
def test_compose_refuses_the_file_when_a_key_is_misspelt(key: str, tmp_path: Path) -> None:
    """Or the test above would prove nothing."""
    text, count = re.subn(rf"\b{key}:", f"{key}x:", (ROOT / "compose.yaml").read_text())
    assert count
    misspelt = tmp_path / "compose.yaml"
    misspelt.write_text(text)
    done = compose("config", "--quiet", file=misspelt)
    assert done.returncode != 0
    assert f"{key}x" in done.stderr


def test_there_is_one_service_for_each_agent_in_workers(agents: dict[str, dict[str, Any]]) -> None:
    """The librarian has no capability of its own: it is the others in one process, for a machine without Compose."""
    in_workers = {
        path.stem
        for path in (ROOT / "workers").glob("*.py")
        if re.search(r"@agent\.(capability|workflow)\(", path.read_text())
    }
    assert {option(service, "--app") for service in agents.values()} == {f"workers.{name}:agent" for name in in_workers}
    assert set(agents) == in_workers


def test_replicas_are_these(agents: dict[str, dict[str, Any]]) -> None:
    replicas = {name: service["deploy"]["replicas"] for name, service in agents.items()}
    assert replicas == {"reader": 1, "keywords": 2, "summarizer": 3, "critic": 3, "editor": 1, "digest": 2}


def test_every_agent_can_be_scaled(agents: dict[str, dict[str, Any]]) -> None:
    """A name or a published port can be held by one container only."""
    for service in agents.values():
        assert "container_name" not in service
        assert "ports" not in service


def test_an_agent_is_not_killed_while_it_drains(agents: dict[str, dict[str, Any]]) -> None:
    for service in agents.values():
        assert seconds(service["stop_grace_period"]) >= float(option(service, "--grace")) + 10


def test_no_service_may_more_than_it_needs(resolved: dict[str, Any]) -> None:
    for name, service in resolved["services"].items():
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), f"{name} must run as a numeric user other than root"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "cap_add" not in service
        assert "privileged" not in service
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["init"] is True
        assert service["restart"] == "unless-stopped"
        assert all(mount["type"] == "volume" or mount["read_only"] for mount in service.get("volumes", ()))


def test_nothing_is_reachable_from_outside_and_no_secret_is_written_down(resolved: dict[str, Any]) -> None:
    published = [port for service in resolved["services"].values() for port in service.get("ports", ())]
    assert [port["host_ip"] for port in published] == ["127.0.0.1"]
    assert "secrets" not in resolved
    written = {entry for service in resolved["services"].values() for entry in service.get("environment", {}).items()}
    assert written == {("STREAMMESH_REDIS_URL", "redis://valkey:6379/0"), ("STREAMMESH_NAMESPACE", "mesh")}


def test_agents_are_healthy_when_ready_and_start_when_the_server_answers(agents: dict[str, dict[str, Any]]) -> None:
    for service in agents.values():
        assert service["healthcheck"]["test"][:4] == ["CMD", "python", "-m", "streammesh.health"]
        assert service["healthcheck"]["test"][-1] == option(service, "--ready-file")
        assert service["depends_on"]["valkey"]["condition"] == "service_healthy"


def test_the_server_keeps_what_it_accepted(resolved: dict[str, Any]) -> None:
    valkey = resolved["services"]["valkey"]
    assert option(valkey, "--appendonly") == "yes"
    assert option(valkey, "--appendfsync") == "everysec"
    assert option(valkey, "--maxmemory-policy") == "noeviction"
    assert [(mount["type"], mount["source"], mount["target"]) for mount in valkey["volumes"]] == [
        ("volume", "valkey", "/data")
    ]
    assert valkey["healthcheck"]["test"] == ["CMD", "valkey-cli", "-e", "ping"]


def test_what_can_be_set_from_outside_is_passed_on() -> None:
    services = resolve(
        STREAMMESH_REDIS_URL="redis://elsewhere:6379/3",
        STREAMMESH_NAMESPACE="orders",
        STREAMMESH_PORT="7000",
        STREAMMESH_DOCUMENTS="/srv/documents",
        STREAMMESH_IMAGE="registry.example/streammesh:1",
    )["services"]
    assert services["critic"]["environment"] == {
        "STREAMMESH_REDIS_URL": "redis://elsewhere:6379/3",
        "STREAMMESH_NAMESPACE": "orders",
    }
    assert services["critic"]["image"] == "registry.example/streammesh:1"
    assert services["valkey"]["ports"][0]["published"] == "7000"
    assert services["reader"]["volumes"][0]["source"] == "/srv/documents"


def test_the_image_is_made_of_what_the_build_may_see(agents: dict[str, dict[str, Any]]) -> None:
    visible = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    lines = (ROOT / "ops" / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if re.match(r"COPY (?!--from)", line) for word in line.split()[1:-1]}
    assert copied == visible
    assert all((ROOT / name).exists() for name in copied)
    for service in agents.values():
        assert service["build"]["dockerfile"] == "ops/Dockerfile"
        assert f"USER {service['user']}" in lines


class Replica:
    """One container of an agent service, as a plain process: its command, its environment, its own /tmp/ready."""

    def __init__(self, service: dict[str, Any], name: str, url: str, directory: Path) -> None:
        self.name = name
        self.ready_file = directory / f"{name}.ready"
        self.log = directory / f"{name}.log"
        self._paths = {option(service, "--ready-file"): str(self.ready_file), "python": sys.executable}
        self._probe = self._here(service["healthcheck"]["test"][1:])
        self.grace = seconds(service["stop_grace_period"])
        environment = CLEAN | service["environment"] | {"STREAMMESH_REDIS_URL": url}
        assert service["command"][0] == "streammesh"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self._here(service["command"])],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _here(self, command: list[str]) -> list[str]:
        return [self._paths.get(word, word) for word in command]

    def healthy(self) -> bool:
        assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}:\n{self.words()}"
        return subprocess.run(self._probe, cwd=ROOT, capture_output=True, timeout=20, check=False).returncode == 0

    def words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def left_running(self) -> bool:
        """Whether any process of its group is still there."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        if self.left_running():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)


@pytest.fixture
def compose_server(resolved: dict[str, Any], tmp_path: Path) -> Iterator[Server]:
    """The server of the file: its command line, on a port and in a folder of this test."""
    program, *words = resolved["services"]["valkey"]["command"]
    assert program == "valkey-server"
    options = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    server = Server("valkey", tmp_path, options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_the_commands_run_as_plain_processes(
    agents: dict[str, dict[str, Any]], compose_server: Server, tmp_path: Path
) -> None:
    """What `docker compose up`, a task of each kind of agent and `docker compose stop` do, without the containers."""
    replicas: list[Replica] = []
    try:
        for kind, service in agents.items():
            for number in range(service["deploy"]["replicas"]):
                replicas.append(Replica(service, f"{kind}-{number + 1}", compose_server.url, tmp_path))
        for replica in replicas:
            eventually_sync(replica.healthy, timeout=60, what=f"{replica.name} is ready")

        with sync.Mesh.connect(compose_server.url) as mesh:
            read = mesh.call("read-document", {"folder": str(ROOT), "path": "CHANGELOG.md"}, timeout=30)
            assert read["text"]
            assert mesh.call("count-terms", {"text": read["text"]}, timeout=30)

        for replica in replicas:
            replica.process.send_signal(signal.SIGTERM)
        for replica in replicas:
            assert replica.process.wait(timeout=replica.grace) == DRAINED, f"{replica.name}:\n{replica.words()}"
            assert not replica.ready_file.exists()
            assert not replica.left_running()
            assert "Traceback" not in replica.words()
    finally:
        for replica in replicas:
            replica.kill()
