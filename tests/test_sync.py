"""The client for plain scripts: the async one's surface, its results and its errors, from any thread."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
import typing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from streammesh import Agent, Message, Reject, Run, State, TaskContext, errors, sync
from streammesh import Auction as AsyncAuction
from streammesh import Mesh as AsyncMesh
from streammesh import RunHandle as AsyncRunHandle
from streammesh import Schedule as AsyncSchedule
from streammesh import Task as AsyncTask
from streammesh.dead import DeadLetters
from streammesh.sync import handles
from tests.eventually import eventually_sync

#: What only the sync client has: the way to the rooms that it does not mirror.
EXTRA = {"wait"}


def _public(owner: type) -> dict[str, inspect.Signature]:
    found = {}
    members = {name: member for one in reversed(owner.__mro__) for name, member in vars(one).items()}
    for name, member in members.items():
        function = member.__func__ if isinstance(member, classmethod) else member
        if not name.startswith("_") and inspect.isfunction(function):
            found[name] = inspect.signature(function)
    return found


@pytest.mark.parametrize(
    ("mirror", "original"),
    [
        (sync.Mesh, AsyncMesh),
        (sync.Task, AsyncTask),
        (sync.RunHandle, AsyncRunHandle),
        (sync.Schedule, AsyncSchedule),
        (handles.Auction, AsyncAuction),
        (sync.DeadLetters, DeadLetters),
    ],
)
def test_it_has_the_methods_of_the_async_client_with_the_same_parameters(mirror: type, original: type) -> None:
    mine, theirs = _public(mirror), _public(original)
    assert set(mine) - EXTRA == set(theirs)
    for name, signature in theirs.items():
        assert mine[name].parameters == signature.parameters, name
        returned, awaited = str(mine[name].return_annotation), str(signature.return_annotation)
        assert returned == awaited.replace("AsyncIterator", "Iterator"), name


def test_its_attributes_are_those_of_the_async_client() -> None:
    mirrored = {"id", "created"}
    for mirror in (sync.Task, sync.RunHandle):
        assert mirrored <= {name for name in vars(mirror) if not name.startswith("_")}
    with sync.Mesh.connect("memory://attributes", namespace="here") as mesh:
        assert (mesh.namespace, repr(mesh)) == ("here", "Mesh('here' at memory://attributes)")
        assert isinstance(mesh.dead, sync.DeadLetters)


def _librarian() -> Agent:
    agent = Agent("librarian", slots=8, lease=1.0)

    @agent.capability("double")
    async def double(n: int) -> int:
        return 2 * n

    @agent.capability("refuse")
    async def refuse() -> None:
        raise Reject("not today")

    @agent.capability("break")
    async def fail() -> None:
        raise RuntimeError("broken")

    @agent.capability("enqueue-from-thread")
    def from_thread(url: str, namespace: str, ctx: TaskContext) -> str:
        with sync.Mesh.connect(url, namespace=namespace) as mesh:
            return str(mesh.enqueue("double", n=4, id="child").record().fields["correlation"])

    @agent.workflow("ask-twice")
    async def ask_twice(run: Run, n: int) -> int:
        doubled = await run.call("double", n=n)
        run.set_status(doubled=doubled)
        return int(doubled + await run.signal("more"))

    @agent.on("ask")
    async def ask(message: Message) -> object:
        return {"heard": message.payload}

    return agent


@pytest.fixture
def mesh(url: str, namespace: str) -> Iterator[sync.Mesh]:
    """An open client, and an agent at work on a loop of its own."""
    agent = _librarian()
    with sync.Mesh.connect(url, namespace=namespace) as mesh, sync.Mesh.connect(url, namespace=namespace) as other:
        serving = threading.Thread(target=other.wait, args=(agent.serve,))
        serving.start()
        eventually_sync(lambda: [one for one in mesh.agents() if one.state == "ready"])
        yield mesh
        agent.stop()
        serving.join(10)


def test_a_task_is_enqueued_and_its_result_waited_for(mesh: sync.Mesh) -> None:
    task = mesh.enqueue("double", n=21, id="the-answer")
    assert (task.id, task.created, repr(task)) == ("the-answer", True, "Task('the-answer')")
    assert task.result(timeout=10) == 42
    assert task.record().state == State.SUCCEEDED
    assert mesh.task("the-answer").result(timeout=10) == 42
    assert not mesh.enqueue("double", {"n": 21}, id="the-answer").created
    assert mesh.call("double", {"n": 5}, timeout=10) == 10


def test_errors_are_those_of_the_async_client(mesh: sync.Mesh) -> None:
    mesh.enqueue("double", {"n": 1}, id="one")
    with pytest.raises(errors.PayloadConflict):
        mesh.enqueue("double", {"n": 2}, id="one")
    with pytest.raises(errors.TaskFailed, match="not today"):
        mesh.call("refuse", timeout=10)
    with pytest.raises(errors.ResultTimeout):
        mesh.enqueue("double", n=1, delay=60).result(timeout=0.05)
    with pytest.raises(errors.UnknownAgent):
        mesh.send("nobody", "ask")
    with pytest.raises(errors.TaskNotFound):
        mesh.task("no-such-task").record()


def test_many_at_once_and_a_verdict_for_each(mesh: sync.Mesh) -> None:
    verdicts = mesh.enqueue_many("double", [{"n": 1}, {"n": 2}, {"n": 3}], ids=["a", "b", "a"])
    assert [type(one).__name__ for one in verdicts] == ["Task", "Task", "PayloadConflict"]
    assert [one.result(10) for one in verdicts if isinstance(one, sync.Task)] == [2, 4]


def test_map_is_a_plain_iterator(mesh: sync.Mesh) -> None:
    drawn: list[int] = []

    def payloads() -> Iterator[dict[str, int]]:
        for n in range(10_000):
            drawn.append(n)
            yield {"n": n}

    results = mesh.map("double", payloads(), limit=4)
    assert [next(results) for _ in range(10)] == [2 * n for n in range(10)]
    assert len(drawn) < 30
    typing.cast("typing.Generator[object]", results).close()
    assert sorted(mesh.map("double", [{"n": n} for n in range(30)], limit=7, ordered=False)) == [2 * n for n in range(30)]  # fmt: skip
    failed = list(mesh.map("refuse", [{}, {}], raising=False))
    assert [type(one) for one in failed] == [errors.TaskFailed, errors.TaskFailed]


def test_a_map_fed_by_a_map_says_what_to_do_instead(mesh: sync.Mesh) -> None:
    """The inner one would have to wait on the very loop that draws from it."""
    inner = mesh.map("double", [{"n": 1}])
    with pytest.raises(errors.ConfigError, match="make a list"):
        list(mesh.map("double", ({"n": n} for n in inner)))
    doubled = list(mesh.map("double", [{"n": 1}]))
    assert list(mesh.map("double", ({"n": n} for n in doubled))) == [4]


def test_messages_and_requests(mesh: sync.Mesh) -> None:
    assert mesh.request("ask", {"a": 1}, timeout=10) == {"heard": {"a": 1}}
    assert mesh.request("ask", 2, to="librarian", timeout=10) == {"heard": 2}
    assert mesh.send("librarian", "ask") != mesh.broadcast("ask")
    with pytest.raises(errors.NotUnderstood):
        mesh.request("sing", to="librarian", timeout=10)


def test_pause_resume_cancel_and_times(mesh: sync.Mesh) -> None:
    assert (mesh.pause("double"), mesh.pause("double")) == (True, False)
    task = mesh.enqueue("double", n=1, at=datetime.now(UTC) + timedelta(hours=1))
    assert (task.cancel(by="me"), task.cancel()) == ("ok", "closed cancelled")
    assert (mesh.resume("double"), mesh.resume("double")) == (True, False)


def test_a_run_is_started_signalled_and_its_result_waited_for(mesh: sync.Mesh) -> None:
    run = mesh.start("ask-twice", n=2, id="the-run")
    assert (run.id, run.created, repr(run)) == ("the-run", True, "RunHandle('the-run')")
    assert not mesh.start("ask-twice", {"n": 2}, id="the-run").created
    with pytest.raises(errors.RunConflict):
        mesh.start("ask-twice", {"n": 2}, id="the-run", on_conflict="fail")
    eventually_sync(lambda: run.head().state == "parked")
    assert run.status() == {"doubled": 4}
    assert (run.pause(by="me"), run.pause()) == ("ok", "unchanged paused")
    assert (run.signal("more", 1, id="once"), run.signal("more", 1, id="once")) == ("ok", "duplicate")
    assert run.resume(by="me") == "ok"
    assert mesh.run("the-run").result(timeout=10) == 5
    assert [record["what"] for record in run.history()] == ["start", "call", "done", "signal", "end"]
    assert (run.cancel(), run.terminate()) == ("closed", "closed succeeded")
    with pytest.raises(errors.RunNotFound):
        mesh.run("no-such-run").head()


def test_dead_letters_are_listed_replayed_and_removed(mesh: sync.Mesh) -> None:
    task = mesh.enqueue("break", id="broken")
    with pytest.raises(errors.TaskDead, match="RuntimeError: broken"):
        task.result(10)
    assert mesh.dead.counts() == {"break": 1}
    (letter,) = mesh.dead.letters("break", error="RuntimeError")
    assert list(mesh.dead.letters("break", error="ValueError")) == []
    assert mesh.dead.replay(letter) == "ok broken"
    eventually_sync(lambda: mesh.dead.counts() == {"break": 1})
    (again,) = mesh.dead.letters()
    assert (again.id, mesh.dead.remove(again), mesh.dead.remove(again)) == ("broken", True, False)


def test_the_other_rooms_are_reached_through_wait(mesh: sync.Mesh) -> None:
    (agent,) = mesh.agents()
    assert {one.capability for one in mesh.wait(lambda m: m.status.capabilities())} >= {"double", "refuse"}
    assert mesh.wait(lambda m: m.registry.resolve("librarian")).id == agent.id


def test_many_threads_share_one_client(mesh: sync.Mesh) -> None:
    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(lambda n: mesh.call("double", {"n": n}, timeout=20), range(200)))
    assert results == [2 * n for n in range(200)]


def test_in_a_thread_handler_the_correlation_is_passed_on(mesh: sync.Mesh, url: str) -> None:
    parent = mesh.enqueue("enqueue-from-thread", url=url, namespace=mesh.namespace, id="parent")
    assert parent.result(10) == "parent"


def test_memory_serves_a_script_too() -> None:
    agent = _librarian()
    with sync.Mesh.connect("memory://sync-and-serve") as mesh:
        task = mesh.enqueue("double", n=2)
        mesh.wait(lambda m: agent.serve(m, burst=True))
        assert task.result(5) == 4


def test_a_mesh_that_is_not_open_says_so() -> None:
    mesh = sync.Mesh.connect("memory://unopened")
    with pytest.raises(errors.ConfigError, match="use `with"):
        mesh.enqueue("double", n=1)
    with pytest.raises(errors.ConfigError, match="use `with"):
        mesh.task("x")
    with mesh:
        with pytest.raises(errors.ConfigError, match="open already"):
            mesh.open()
        mesh.enqueue("double", n=1)
    with pytest.raises(errors.ConfigError, match="not open"):
        mesh.agents()
    mesh.close()


def test_a_failed_opening_leaves_no_thread(namespace: str) -> None:
    with pytest.raises(errors.StoreUnavailable):
        sync.Mesh.connect("redis://127.0.0.1:1", namespace=namespace, patience=0).open()
    assert "streammesh" not in {thread.name for thread in threading.enumerate()}


def test_closing_ends_calls_that_wait_in_other_threads() -> None:
    with sync.Mesh.connect("memory://closing") as mesh, ThreadPoolExecutor(1) as threads:
        task = mesh.enqueue("nobody-does-this")
        waiting = threads.submit(task.result)
        eventually_sync(lambda: "waiters" in task.record().fields)
        mesh.close()
        with pytest.raises(errors.MeshError, match="closed while this call waited"):
            waiting.result(10)


def test_an_interrupted_call_is_given_up_on_the_loop_as_well(url: str, namespace: str, tmp_path: Path) -> None:
    """Ctrl-C in a script that waits for ever: the script ends, and ends soon."""
    script = tmp_path / "waits.py"
    script.write_text(
        "from streammesh.sync import Mesh\n"
        f"with Mesh.connect({url!r}, namespace={namespace!r}) as mesh:\n"
        "    task = mesh.enqueue('nobody-does-this')\n"
        "    try:\n"
        "        print('waiting', flush=True)\n"
        "        task.result()\n"
        "    except KeyboardInterrupt:\n"
        "        print(task.record().state, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
                          env={"PYTHONPATH": str(Path(__file__).parents[1])}) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        with sync.Mesh.connect(url, namespace=namespace) as mesh:
            eventually_sync(lambda: [one for one in _replies(mesh) if one])
        process.send_signal(2)
        assert process.stdout.readline() == "queued\n"
        assert process.wait(10) == 0


def _replies(mesh: sync.Mesh) -> list[str]:
    """The ids of tasks that somebody waits for."""

    async def look(m: AsyncMesh) -> list[str]:
        found: list[str] = []
        cursor = "0"
        while True:
            cursor, keys = await m.store.command("SCAN", cursor, "MATCH", m.keys.task("*"), "COUNT", 10_000)
            found += [key for key in keys if await m.store.command("HEXISTS", key, "waiters")]
            if cursor == "0":
                return found

    return mesh.wait(look)


def test_topics_are_read_in_a_plain_loop(url: str, namespace: str) -> None:
    heard: list[int] = []
    with sync.Mesh.connect(url, namespace=namespace) as mesh, mesh.subscribe("news", group="readers") as messages:
        for n in range(3):
            mesh.publish("news", {"n": n}, require_subscriber=True)
        for message in messages:
            heard.append(message.payload["n"])
            if len(heard) == 3:
                messages.stop()
    assert heard == [0, 1, 2]
