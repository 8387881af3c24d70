"""ops/bootstrap, from a folder with a space in its path: does nothing when all is there, and names cause and cure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("sh", "cat", "cksum", "cut", "dirname", "env", "grep", "head", "rm", "sed", "tail")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the bootstrap reads, and a `bin` with the tools that it uses but no Python."""
    top = tmp_path / "a checkout"
    (top / "ops").mkdir(parents=True)
    for name in ("ops/bootstrap", "pyproject.toml"):
        shutil.copy(ROOT / name, top / name)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, f"no {tool} on this machine"
        (tmp_path / "bin" / tool).symlink_to(found)
    return top


def bootstrap(checkout: Path, **environment: str) -> tuple[int, str]:
    """Call it from another folder; return its exit code and what it said."""
    path = {"PATH": str(checkout.parent / "bin")}
    command = [str(checkout / "ops" / "bootstrap")]
    done = subprocess.run(
        command, cwd="/", env=path | environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def program(checkout: Path, name: str, script: str) -> Path:
    path = checkout.parent / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_without_python_it_says_what_to_install(checkout: Path) -> None:
    code, words = bootstrap(checkout)
    assert code == 1
    assert "streammesh needs Python 3.11 or newer, and there is no python3 on the PATH" in words
    assert words.count("cure: ") == 2


def test_an_old_python_is_named(checkout: Path) -> None:
    program(checkout, "python3", '[ "$1" = --version ] && echo Python 3.9.2 && exit 0; exit 1')
    code, words = bootstrap(checkout)
    assert code == 1
    assert "there is only Python 3.9.2 on the PATH" in words


def test_a_newer_python_behind_an_old_one_is_found(checkout: Path) -> None:
    """Found, and then stopped at its missing venv module, so that nothing is installed here."""
    program(checkout, "python3", "exit 1")
    newer = program(checkout, "python3.12", 'case "$*" in *ensurepip*) exit 1;; esac; exit 0')
    code, words = bootstrap(checkout)
    assert code == 1
    assert f"{newer} has no venv module" in words
    assert "apt-get install python3-venv" in words


def test_an_interpreter_that_was_asked_for_is_never_replaced_by_another(checkout: Path) -> None:
    program(checkout, "python3", "exit 0")
    code, words = bootstrap(checkout, PYTHON="/nowhere/python3")
    assert code == 1
    assert "PYTHON=/nowhere/python3 is not a Python 3.11 or newer" in words


def test_when_all_is_there_it_says_nothing_and_needs_no_python(checkout: Path) -> None:
    ready(checkout)
    assert bootstrap(checkout) == (0, "")


@pytest.mark.parametrize("change", ["another folder", "another pyproject.toml", "no interpreter"])
def test_it_starts_over_when_something_has_changed(change: str, checkout: Path) -> None:
    ready(checkout)
    if change == "another folder":
        checkout = checkout.rename(checkout.with_name("moved"))
    elif change == "another pyproject.toml":
        (checkout / "pyproject.toml").write_text("[project]\n")
    else:
        (checkout / ".venv" / "bin" / "python").unlink()
    code, words = bootstrap(checkout)
    assert code == 1
    assert "no python3 on the PATH" in words


@pytest.mark.slow
def test_without_a_network_it_says_so(checkout: Path) -> None:
    """The index is a port on which nobody listens, the nearest thing to a cable that is not plugged in."""
    (checkout / "README.md").touch()
    environment = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull}
    code, words = bootstrap(checkout, **environment, **nowhere)
    assert code == 1
    assert "no network, or the package index cannot be reached" in words
    assert "PIP_INDEX_URL" in words
    assert not (checkout / ".venv" / "bootstrap.stamp").exists()


def ready(checkout: Path) -> None:
    """What a finished bootstrap leaves, as far as the next one looks at it."""
    (checkout / ".venv" / "bin").mkdir(parents=True)
    python = checkout / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    stated = subprocess.run(["cksum"], input=stamped(checkout), capture_output=True, timeout=20, check=True)
    (checkout / ".venv" / "bootstrap.stamp").write_text(f"{checkout.resolve()}\n{stated.stdout.decode()}")


def stamped(checkout: Path) -> bytes:
    return (checkout / "pyproject.toml").read_bytes() + (checkout / "ops" / "bootstrap").read_bytes()
