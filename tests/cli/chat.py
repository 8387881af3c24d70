"""Agents that gossip, and one that does not, for the tests of `gossip`."""

import os

from streammesh import Agent, Message, gossiping

# A test need not wait for what takes seconds in a mesh.
gossiping.INTERVAL = float(os.environ.get("CHAT_INTERVAL", "0.1"))

north = Agent("north", lease=2.0, grace=2.0, gossip=True)
south = Agent("south", lease=2.0, grace=2.0, gossip=True)
west = Agent("west", lease=2.0, grace=2.0, gossip=True)
mute = Agent("mute", lease=2.0, grace=2.0, gossip=False)


@west.on("greet")
@mute.on("greet")
@south.on("hello")
async def hello(_: Message) -> str:
    return "hello"


@north.on("ask")
async def ask(_: Message) -> object:
    assert north.serving is not None
    return await north.serving._mesh.request("hello", timeout=5)
