"""streammesh: durable tasks for plain Python processes, on nothing but Redis Streams.

General layout, from the bottom up; imports only go down:

    errors keys             the error tree; every key
    codec settings moments  JSON with limits; where the server is; points in time
    record                  what a task's record says
    connections embedded    connections by URL; a server from a wheel
    store batch             the door to the server (lua/ holds the scripts); coalescing
    replies results         waiting without polling; what became of tasks
    tasks registry timers messages dead     one room for each kind of thing in the server
    sweep status            the repairing pass; read-only numbers
    mesh                    the client: all rooms together
    sync                    the same for plain scripts
    handlers claims pulse perform serving agent    the worker process
    cli testing             the command line; the pytest plugin
"""

from streammesh import errors
from streammesh.agent import Agent
from streammesh.errors import MeshError, Reject, Retry
from streammesh.handlers import TaskContext
from streammesh.mesh import Mesh
from streammesh.messages import Message
from streammesh.record import Record, State
from streammesh.registry import AgentInfo
from streammesh.tasks import Task

__all__ = [
    "Agent",
    "AgentInfo",
    "Mesh",
    "MeshError",
    "Message",
    "Record",
    "Reject",
    "Retry",
    "State",
    "Task",
    "TaskContext",
    "errors",
]

__version__ = "0.1.0"
