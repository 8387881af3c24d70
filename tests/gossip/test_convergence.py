"""How many rounds and bytes it takes until everybody knows: within bounds that follow from the number of participants."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import ceil, log2

import pytest

from tests.gossip.network import Network, settled

SLOW = pytest.mark.slow
Figure = Callable[[str, object], None]


def bound(n: int, loss: float) -> int:
    return ceil(1.5 * log2(n)) + 4 if loss else ceil(log2(n)) + 2


def rounds_until_known(network: Network, limit: int) -> int:
    n = len(network.names)
    network.nodes["a.0"].set("status", "new")
    return network.rounds(limit + 1, lambda: network.knows("a.0", "status", "new") == n)


@pytest.mark.parametrize("loss", [0.0, 0.2], ids=["lossless", "loss"])
@pytest.mark.parametrize(
    ("n", "seeds"), [(50, 20), (200, 1), pytest.param(50, 100, marks=SLOW), pytest.param(200, 100, marks=SLOW), pytest.param(500, 30, marks=SLOW)]
)  # fmt: skip
def test_one_change_reaches_everybody(n: int, seeds: int, loss: float, record_property: Figure) -> None:
    taken = []
    for seed in range(seeds):
        network = settled(n, seed, loss=loss, checked=False)
        assert len(network.nodes) == n
        taken.append(rounds_until_known(network, bound(n, loss)))
    record_property("rounds", f"median {sorted(taken)[seeds // 2]}, most {max(taken)}, bound {bound(n, loss)}")
    assert max(taken) <= bound(n, loss), taken


@pytest.mark.parametrize(("n", "seeds"), [(50, 5), pytest.param(200, 10, marks=SLOW), pytest.param(500, 5, marks=SLOW)])
def test_two_halves_that_were_cut_off_agree_when_they_meet_again(n: int, seeds: int) -> None:
    for seed in range(seeds):
        network = settled(n, seed, checked=False)
        network.cut(network.names[: n // 2])
        network.nodes["a.0"].set("side", "left")
        network.nodes[f"a.{n - 1}"].set("side", "right")
        network.rounds(50)
        assert network.knows("a.0", "side", "left") == network.knows(f"a.{n - 1}", "side", "right") == n // 2
        network.cut([])
        taken = network.rounds(bound(n, 0) + 4, network.converged)
        assert taken <= bound(n, 0) + 3, f"seed {seed}: {taken} rounds"
        network.check_views()


@pytest.mark.parametrize("n", [50, pytest.param(200, marks=SLOW)])
def test_what_it_costs(n: int, record_property: Figure) -> None:
    network = settled(n, 1, checked=False)
    network.rounds(10)
    begun = sum(node.counters.begun for node in network.nodes.values())
    equal = sum(node.counters.equal for node in network.nodes.values())
    record_property("at rest", f"{equal / begun:.1%} end at the hash, {network.sent / begun:.0f} B each")
    assert equal >= 0.95 * begun
    assert network.sent <= 600 * begun
    before = network.sent
    rounds_until_known(network, bound(n, 0))
    assert network.converged()
    record_property("one changed key", f"{(network.sent - before) / n:.0f} B for each participant")
    assert network.sent - before <= 4096 * n


def test_no_frame_is_above_the_cap_however_much_there_is_to_say() -> None:
    network = Network(60, 3, frame=4096)
    for number, node in enumerate(network.nodes.values()):
        for key in range(10):
            node.set(f"key-{key}", f"{number} " * 20)
    network.rounds(60, network.converged)
    assert network.converged()
    network.check_views()
    assert 2048 < network.largest <= 4096


@pytest.mark.slow
def test_five_hundred_for_thirty_rounds_take_less_than_ten_seconds(record_property: Figure) -> None:
    network = settled(500, 1, checked=False)
    began = time.process_time()
    for number in range(30):
        network.nodes[f"a.{number}"].set("status", number)
        network.rounds(1)
    took = time.process_time() - began
    record_property("seconds", f"{took:.1f}, {network.frames} frames")
    assert took <= 10
