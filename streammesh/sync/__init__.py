"""The same client for plain scripts: every call is run by the async client, on a loop in a thread of its own.

    with Mesh.connect("redis://localhost:6379") as mesh:
        task = mesh.enqueue("summarize", text="…", id="doc-17")
        print(task.result(timeout=30))

Promises and errors are those of `streammesh.Mesh`: nothing is implemented here a second time. A Mesh may be used by many
threads at once; a call that is interrupted (Ctrl-C) is given up on the loop as well. In a handler that runs in a thread,
what is enqueued here inherits the correlation id. In a coroutine use the async client instead: these calls would block its loop.
"""

from streammesh.sync.handles import DeadLetters, RunHandle, Schedule, Subscription, Task
from streammesh.sync.mesh import Mesh

__all__ = ["DeadLetters", "Mesh", "RunHandle", "Schedule", "Subscription", "Task"]
