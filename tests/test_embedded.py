"""The embedded server: one for all who name its folder, stopped by the last one, its data kept."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streammesh import Mesh
from streammesh.embedded import Embedded

ROOT = Path(__file__).resolve().parents[1]


def test_users_share_one_server_and_the_last_one_stops_it(tmp_path: Path) -> None:
    one, two = Embedded(tmp_path), Embedded(tmp_path)
    one.start()
    two.start()
    assert one.pid() == two.pid()
    began = time.monotonic()
    assert one.release() is False
    assert time.monotonic() - began < 0.5, "who is not the last one has nothing to wait for"
    assert two.alive()
    assert two.release() is True
    assert not two.alive()


def test_a_user_that_was_killed_does_not_count(tmp_path: Path) -> None:
    program = f"import time; from streammesh.embedded import Embedded; Embedded({str(tmp_path)!r}).start(); print('up', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert other.stdout is not None
    assert other.stdout.readline() == "up\n"
    one = Embedded(tmp_path)
    one.start()
    other.kill()
    other.wait(10)
    other.stdout.close()
    assert one.release() is True


def test_a_client_that_came_by_the_socket_keeps_it_up(tmp_path: Path) -> None:
    one = Embedded(tmp_path)
    one.start()
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(str(one.socket))
        visitor.sendall(b"PING\r\n")
        assert visitor.recv(7) == b"+PONG\r\n"
        assert one.release() is False
    two = Embedded(tmp_path)
    two.start()
    assert two.release() is True


@pytest.mark.anyio
async def test_the_data_is_there_again(tmp_path: Path) -> None:
    for created in (True, False):
        async with Mesh.connect(f"embedded://{tmp_path}") as mesh:
            task = await mesh.enqueue("greet", name="Ada", id="kept")
            assert task.created is created
    assert not Embedded(tmp_path).alive()
