"""What a naive gossip does, and this one does not."""

from __future__ import annotations

from random import Random

from streammesh.gossip import Gossip


def test_nobody_gossips_with_itself() -> None:
    node, rng = Gossip("a.0", 1), Random(1)
    node.see(["a.0"], 0.0)
    assert node.tick(0.0, rng) == []
    node.see(["a.0", "b.1"], 1.0)
    assert {frame.to for now in range(50) for frame in node.tick(float(now), rng)} == {"b.1"}
