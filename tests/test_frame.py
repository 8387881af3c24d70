"""The ground the other tests stand on: waiting for conditions, servers that outlive kills, the choice of slow tests."""

from __future__ import annotations

import time

import pytest
import redis

from tests.eventually import eventually, eventually_sync
from tests.servers import FLAVOURS, Server, find_binary


async def test_eventually_returns_the_first_true_value_of_an_async_or_plain_condition() -> None:
    answers = iter([0, None, "", "now"])

    async def condition() -> object:
        return next(answers)

    assert await eventually(condition) == "now"
    assert await eventually(lambda: 7) == 7


async def test_eventually_fails_with_the_condition_and_what_it_last_saw() -> None:
    tasks = ["one is left"]
    with pytest.raises(AssertionError, match=r"not within 0.05 s: .*not tasks.*\nlast seen: False"):
        await eventually(lambda: not tasks, timeout=0.05)
    with pytest.raises(AssertionError, match=r"not within 0.05 s: all done\nlast seen: None"):
        eventually_sync(lambda: None, timeout=0.05, what="all done")


async def test_an_assertion_in_the_condition_means_not_yet_and_any_other_error_ends_the_wait() -> None:
    left = ["a", "b"]

    def none_left() -> bool:
        assert not left, f"{len(left)} tasks are left"
        return True

    with pytest.raises(AssertionError, match="last seen: 2 tasks are left"):
        eventually_sync(none_left, timeout=0.05)
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        await eventually(lambda: 1 / 0, timeout=60)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_server_keeps_its_port_and_its_data_over_a_kill(
    flavour: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if find_binary(flavour) is None:
        pytest.skip(f"no {flavour} server on this machine")
    server = Server(flavour, tmp_path_factory.mktemp("kept"))
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "yes")
            client.waitaof(1, 0, 5000) if flavour == "valkey" else eventually_sync(
                lambda: client.info("persistence")["aof_pending_bio_fsync"] == 0
            )
            before = server.pid
            server.kill()
            server.start()
            assert server.pid != before
            assert client.get("kept") == b"yes"
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    finally:
        server.stop()


def test_each_server_is_of_the_flavour_it_says(each_server: Server) -> None:
    with redis.Redis.from_url(each_server.url) as client:
        info = client.info("server")
    assert info.get("server_name", "redis") == each_server.flavour
    assert info["process_id"] == each_server.pid


def test_slow_tests_are_left_out_unless_asked_for(pytester: pytest.Pytester) -> None:
    conftest = pytester.path / "conftest.py"
    conftest.write_text("from tests.conftest import pytest_addoption, pytest_collection_modifyitems\n")
    pytester.makepyfile("import pytest\n\ndef test_quick(): pass\n\n@pytest.mark.slow\ndef test_long(): pass\n")
    options = ["-p", "no:cacheprovider", "--override-ini=markers=slow: takes long"]
    pytester.runpytest(*options).assert_outcomes(passed=1, deselected=1)
    pytester.runpytest(*options, "--slow").assert_outcomes(passed=2)
    pytester.runpytest(*options, "-m", "slow").assert_outcomes(passed=1, deselected=1)
