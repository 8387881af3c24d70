"""What holds whatever the network does: nobody goes back, nothing is made up, what is deleted stays deleted."""

from __future__ import annotations

from random import Random

import pytest

from streammesh.errors import InvalidPayload, PayloadTooLarge
from streammesh.gossip import Frame, Gossip
from tests.gossip.network import Network

SEEDS = [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 100))]


def storm(seed: int, n: int = 12, rounds: int = 60) -> tuple[Network, set[tuple[str, str]]]:
    """Writes, deletions, crashes, freezes and cuts, while frames are lost, doubled and overtaken; then 25 quiet rounds.

    Also returned: what was deleted for ever, by owner and key.
    """
    chaos = Random(seed)
    network = Network(n, seed, loss=0.2, double=0.1, latency=(0.001, 5.0), frame=2048, grace=20.0)
    deleted: set[tuple[str, str]] = set()
    for number in range(rounds):
        for node in list(network.nodes.values()):
            key = f"k{chaos.randrange(6)}"
            if chaos.random() < 0.3 and (node.me, key) not in deleted:
                node.set(key, [number, "x" * chaos.randrange(60)])
            elif chaos.random() < 0.1 and node.delete(key):
                deleted.add((node.me, key))
        name = chaos.choice(network.names)
        act = chaos.choice(["crash", "freeze", "thaw", "cut", "heal", "", "", ""])
        if act == "crash" and name in network.nodes:
            network.crash(name)
            network.rounds(chaos.randrange(3))
            network.start(name).set("card", f"generation {network.generations[name]}")
        elif act == "freeze" and name not in network.frozen and len(network.frozen) < n // 2:
            network.freeze(name)
        elif act == "thaw" and network.frozen:
            network.thaw(chaos.choice(list(network.frozen)))
        elif act == "cut":
            network.cut(chaos.sample(network.names, n // 2))
        elif act == "heal":
            network.cut([])
        network.rounds(1)
    network.cut([])
    for name in list(network.frozen):
        network.thaw(name)
    network.loss = 0.0
    network.rounds(25)
    return network, deleted


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_storm_all_see_of_everybody_what_that_one_says(seed: int) -> None:
    network, deleted = storm(seed)
    assert deleted
    assert network.converged()
    network.check_views()
    for owner, key in deleted:
        assert network.knows(owner, key, None) == len(network.nodes), f"{key} of {owner} is back"
    # By now every tombstone has had its time.
    assert sum(node.tombstones for node in network.nodes.values()) == 0


def test_the_same_seed_is_the_same_history() -> None:
    assert storm(5, rounds=15)[0].trace() == storm(5, rounds=15)[0].trace()
    assert storm(5, rounds=15)[0].trace() != storm(6, rounds=15)[0].trace()


def test_a_restart_takes_the_place_of_what_was() -> None:
    network = Network(10, 1)
    network.nodes["a.3"].set("old", 1)
    network.rounds(10)
    network.crash("a.3")
    network.rounds(2)
    network.start("a.3").set("new", 2)
    network.rounds(10)
    assert all(node.view("a.3") == {"new": 2} for node in network.nodes.values())


def test_who_slept_through_a_deletion_and_its_tombstone_forgets_the_key_as_well() -> None:
    network = Network(10, 1, grace=10.0)
    network.nodes["a.0"].set("kept", 1)
    network.nodes["a.0"].set("deleted", 1)
    network.rounds(10)
    network.cut(["a.9"])
    network.nodes["a.0"].delete("deleted")
    network.rounds(20)
    assert network.nodes["a.1"].tombstones == 0
    assert network.nodes["a.9"].get("deleted", "a.0") == 1
    network.cut([])
    network.rounds(10)
    assert network.converged()
    assert network.nodes["a.9"].view("a.0") == {"kept": 1}
    assert network.nodes["a.9"].counters.resets == 1


def test_an_owner_that_is_gone_is_forgotten_and_does_not_come_back_from_a_slower_one() -> None:
    quick, slow = Gossip("a.1", 1, owner_grace=10.0), Gossip("a.2", 1, owner_grace=1e9)
    gone = Gossip("a.3", 1)
    gone.set("card", 1)
    for node, other in ((quick, "a.2"), (slow, "a.1")):
        node.see([other, "a.3"], 0.0)
        for frame in gone.receive(Frame(node.me, "a.3", {"v": 1, "t": "dig", "at": list(range(64)), "d": []})):
            node.receive(frame)
        node.see([other], 0.0)
    assert quick.owners() == slow.owners() == ["a.3"]
    rng, nodes = Random(1), {"a.1": quick, "a.2": slow}
    seen = []
    for now in range(15):
        frames = [*quick.tick(now, rng), *slow.tick(now, rng)]
        while frames:
            frames = [answer for frame in frames for answer in nodes[frame.to].receive(frame)]
        seen.append((quick.owners(), quick.get("card", "a.3")))
    assert seen[4] == (["a.3"], 1)
    assert seen[5] == ([], 1), "no longer told, still known"
    assert seen[10] == seen[14] == ([], None)
    assert slow.get("card", "a.3") == 1


def test_what_does_not_fit_is_refused() -> None:
    node = Gossip("a.1", 5)
    node.see(["a.2"], 0.0)

    def give(*item: object) -> None:
        node.receive(Frame("a.2", "a.1", {"v": 1, "t": "delta", "want": [], "items": [list(item)]}))

    give("a.2", 3, 0, 2, 0, [["k", 1, 2, 0]])
    give("a.2", 3, 4, 5, 0, [["k", "after a gap", 5, 0]])
    give("a.2", 2, 0, 9, 0, [["k", "of an old generation", 9, 0]])
    give("a.2", 3, 0, 1, 0, [["k", "old", 1, 0]])
    give("a.1", 9, 0, 9, 0, [["k", "forged", 9, 0]])
    assert node.view("a.2") == {"k": 1}
    assert node.view("a.1") == {}
    assert node.counters.rejected == 2
    for body in (
        {},
        {"v": 2, "t": "syn"},
        {"v": 1, "t": "syn"},
        {"v": 1, "t": "no"},
        {"v": 1, "t": "dig", "d": [[1]], "at": [999]},
    ):
        assert node.receive(Frame("a.2", "a.1", dict(body))) == []
    give("a.4", "x", 0, 1, 0, [])
    give("a.4", 1, 0, 1, 0, "bad")
    assert node.counters.unreadable == 7


def test_what_one_may_say_has_a_limit() -> None:
    node = Gossip("a.1", 1, frame=4096)
    node.set("a", "x" * 1000)
    with pytest.raises(PayloadTooLarge, match="say less"):
        node.set("b", "x" * 1000)
    with pytest.raises(InvalidPayload):
        node.set("b", {1, 2})
    with pytest.raises(InvalidPayload, match="delete"):
        node.set("b", None)
    node.set("a", "short")
    node.set("b", "x" * 1000)
    version = node.digest()[0][2]
    node.set("b", "x" * 1000)
    assert node.digest()[0][2] == version, "the same again is no change"
    assert node.delete("a")
    assert not node.delete("a")
    assert node.view("a.1").keys() == {"b"}
