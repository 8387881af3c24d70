"""streammesh: durable tasks and runs for plain Python processes, on nothing but Redis Streams.

General layout, from the bottom up; imports only go down:

    errors keys             the error tree; every key
    codec settings moments  JSON with limits; where the server is; points in time
    rhythm                  when something comes again: cron and intervals
    commands places writes  what an execution asks for; places in code; writes that commit with a journal
    choice breaker suspicion    which of several agents; leaving one in peace; whom to doubt, for routing alone
    motions tally bids      a vote before and after; what ballots come to; what an auction is about
    record envelope cards   what a task's record says; what a message says of itself; an agent's card as A2A writes it
    boundaries              how far a flow may reach, how much it may send
    edges                   how it goes with each peer that is asked
    loop watchdog           a loop on which a workflow runs the same way every time; where one computes without giving way
    execution saga          one execution against its journal; undoing in reverse order
    records forks replays   what journal records are; a run that begins with what another one did; journals against code
    connections embedded    connections by URL; a server from a wheel
    workflow                what a workflow may do: Run
    knowledge gossip        what everybody tells everybody, as a state machine
    store batch             the door to the server (lua/ holds the scripts); coalescing
    replies results         waiting without polling; what became of tasks
    tasks registry timers messages dead journal     one room for each kind of thing in the server
    runs runlist schedules votes auctions           a handle on a run; runs in a list; what is started at set times; decisions
    sweep status peers      the repairing pass; read-only numbers; who else is here
    listing causes checkup  tasks in a list; why one is not running; is all this fit for work
    steps runcauses tracing     what a run did; why it does not move; everything that one thing caused, as one tree
    asking topics           to whom a request or a directed task goes; what is published for whoever subscribes
    rooms mesh              the client: all rooms together
    sync movable            the same for plain scripts; the clock of a mesh under test
    rq                      functions of RQ as capabilities; handlers in work-horses
    handlers offering       what an agent declares; what it offers now
    lanes claims perform activate                   what it takes, and runs
    hearing answers polling bidding delegating      what it hears, answers, votes, bids, hands on
    pulse tending detecting presence listening      its beats; what it does for all; who is late, who is gone; news
    overflow                what it does with work that was sent to it while it is full
    gossiping supervised    gossip on the mesh; loops that are started again when they fall
    serving agent           the worker process
    solving                 brainstorm, critique, vote, implement: a workflow that is ready to use
    health cli testing      is an agent ready; the command line; the pytest plugin

The names below are loaded when they are first used, so that `streammesh --version` need not wait for a Redis client.
"""

import typing as _typing
from importlib import import_module as _import_module

if _typing.TYPE_CHECKING:
    from streammesh import errors
    from streammesh.agent import Agent
    from streammesh.auctions import Auction
    from streammesh.bids import AuctionRecord, Bid, Call, Refusal
    from streammesh.delegating import Load
    from streammesh.envelope import Message
    from streammesh.errors import Defer, MeshError, Refuse, Reject, Retry
    from streammesh.handlers import TaskContext
    from streammesh.mesh import Mesh
    from streammesh.motions import Ballot, Collected, Decision, Veto
    from streammesh.peers import Membership, PeerInfo
    from streammesh.record import Record, State, new_flow
    from streammesh.registry import AgentInfo
    from streammesh.runs import RunHandle
    from streammesh.schedules import Schedule
    from streammesh.solving import solve
    from streammesh.tasks import Task
    from streammesh.topics import Subscription
    from streammesh.workflow import Run

__all__ = [
    "Agent",
    "AgentInfo",
    "Auction",
    "AuctionRecord",
    "Ballot",
    "Bid",
    "Call",
    "Collected",
    "Decision",
    "Defer",
    "Load",
    "Membership",
    "Mesh",
    "MeshError",
    "Message",
    "PeerInfo",
    "Record",
    "Refusal",
    "Refuse",
    "Reject",
    "Retry",
    "Run",
    "RunHandle",
    "Schedule",
    "State",
    "Subscription",
    "Task",
    "TaskContext",
    "Veto",
    "errors",
    "new_flow",
    "solve",
]

__version__ = "0.1.0"

#: Public name -> the module that it comes from.
_HOMES = {
    "Agent": "agent",
    "AgentInfo": "registry",
    "Ballot": "motions",
    "Collected": "motions",
    "Decision": "motions",
    "Membership": "peers",
    "Auction": "auctions",
    "AuctionRecord": "bids",
    "Bid": "bids",
    "Call": "bids",
    "Refusal": "bids",
    "Mesh": "mesh",
    "MeshError": "errors",
    "Message": "envelope",
    "PeerInfo": "peers",
    "Record": "record",
    "Defer": "errors",
    "Load": "delegating",
    "Refuse": "errors",
    "Reject": "errors",
    "Retry": "errors",
    "State": "record",
    "Subscription": "topics",
    "Task": "tasks",
    "TaskContext": "handlers",
    "Veto": "motions",
    "Run": "workflow",
    "RunHandle": "runs",
    "Schedule": "schedules",
    "solve": "solving",
    "new_flow": "record",
}


def __getattr__(name: str) -> _typing.Any:
    if name == "errors":
        return _import_module("streammesh.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'streammesh' has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(f"streammesh.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
