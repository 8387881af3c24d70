"""The pytest plugin, used as its reader would use it: in a test session of its own."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from textwrap import dedent

import pytest

from streammesh import Agent, Mesh, TaskContext, testing
from streammesh.errors import ConfigError, Reject, Retry
from streammesh.testing import Report, leaked_keys, run_until_idle

ROOT = Path(__file__).parents[1]

CONFTEST = """
def pytest_addoption(parser, pluginmanager):
    if not pluginmanager.has_plugin("streammesh"):
        from streammesh import testing
        pluginmanager.register(testing, "streammesh")
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty project whose tests see this checkout, as if it were installed."""
    monkeypatch.syspath_prepend(str(ROOT))
    pytester.makeconftest(CONFTEST)
    return pytester


def _example() -> str:
    """The code of the module's docstring: what is indented in it."""
    lines = inspect.cleandoc(testing.__doc__ or "").splitlines()
    return dedent("\n".join(line for line in lines[lines.index("    import pytest") :] if not line[:1].strip()))


def test_the_example_of_the_docstring_passes(session: pytest.Pytester) -> None:
    session.makepyfile(_example())
    session.runpytest_inprocess("-p", "no:cacheprovider", "-q").assert_outcomes(passed=3)


def test_the_example_passes_on_a_real_server_and_leaves_nothing_there(session: pytest.Pytester, url: str) -> None:
    session.makepyfile(_example())
    session.runpytest_inprocess("--mesh-url", url).assert_outcomes(passed=3)

    async def left() -> list[str]:
        async with Mesh.connect(url, namespace="any") as mesh:
            return [key for key in await mesh.store.command("KEYS", "*") if "{test-" in key]

    assert asyncio.run(left()) == []


def test_a_test_that_leaves_work_behind_fails(session: pytest.Pytester) -> None:
    session.makepyfile(
        """
        import pytest

        @pytest.fixture(autouse=True)
        def _clean(no_leaked_keys):
            pass

        def test_without_a_mesh():
            pass

        @pytest.mark.anyio
        async def test_clean(mesh):
            pass

        @pytest.mark.anyio
        async def test_leaves_a_task(mesh):
            await mesh.enqueue("greet", id="forgotten")

        @pytest.mark.anyio
        async def test_leaves_a_delayed_one(mesh):
            await mesh.enqueue("greet", delay=60)

        @pytest.mark.anyio
        async def test_leaves_a_key(mesh):
            await mesh.store.command("SET", mesh.keys.prefix() + "scratch", 1)
        """
    )
    outcome = session.runpytest_inprocess()
    outcome.assert_outcomes(passed=5, errors=3)
    outcome.stdout.fnmatch_lines_random(
        ["*task forgotten is queued, without a TTL*", "*due holds 1 that nobody has finished*", "*scratch has no TTL*"]
    )


def test_anyio_alone_runs_it(session: pytest.Pytester) -> None:
    """No other async plugin is asked for, and none is needed."""
    session.makepyfile(
        """
        import pytest

        @pytest.mark.anyio
        async def test_agent(mesh, agent, run_until_idle):
            @agent.capability("greet")
            def greet(name):
                return f"hello {name}"

            task = await mesh.enqueue("greet", name="ada")
            await run_until_idle(agent)
            assert await task.result(1) == "hello ada"
        """
    )
    session.runpytest_inprocess("-p", "no:asyncio", "-p", "no:pytest_asyncio").assert_outcomes(passed=1)


def test_the_plugin_costs_little_where_it_is_not_used() -> None:
    imported = {line.split()[1] for line in Path(testing.__file__).read_text().splitlines() if line.startswith("from ")}
    assert "streammesh" not in {name.partition(".")[0] for name in imported}


# -- run_until_idle


async def test_it_reports_what_became_of_everything(mesh: Mesh) -> None:
    agent = Agent("all-sorts", slots=4)
    tries = []

    @agent.capability("work", retries=1)
    async def work(how: str, ctx: TaskContext) -> str:
        tries.append(ctx.attempt)
        if how == "reject":
            raise Reject("no")
        if how == "retry" and len([one for one in tries if one > 1]) == 0:
            raise Retry(3600)
        if how == "break":
            raise RuntimeError
        return how

    await mesh.enqueue_many("work", [{"how": how} for how in ("reject", "retry", "break", "fine")])
    await mesh.enqueue("work", how="expire", deadline=0.0)
    await (await mesh.enqueue("work", how="cancel")).cancel()
    assert await run_until_idle(mesh, agent) == Report(
        attempts=6, fired=2, succeeded=2, failed=1, dead=1, cancelled=1, expired=1
    )


async def test_agents_run_side_by_side_and_call_each_other(mesh: Mesh) -> None:
    front, back = Agent("front"), Agent("back")

    @front.capability("ask")
    async def ask(ctx: TaskContext) -> int:
        return int(await ctx.mesh.call("answer", {"n": 1}, timeout=5)) + 1

    @back.capability("answer")
    async def answer(n: int) -> int:
        return n + 1

    task = await mesh.enqueue("ask")
    report = await run_until_idle(mesh, front, back)
    assert (await task.result(1), report.succeeded) == (3, 2)


async def test_it_says_what_is_left_when_it_never_ends(mesh: Mesh) -> None:
    agent = Agent("sisyphus")

    @agent.capability("roll")
    async def roll() -> None:
        raise Retry(60)

    await mesh.enqueue("roll")
    with pytest.raises(TimeoutError, match=r"not idle after 0\.3 s: .+; does a handler"):
        await run_until_idle(mesh, agent, timeout=0.3)


async def test_it_raises_what_keeps_an_agent_from_starting(mesh: Mesh) -> None:
    with pytest.raises(ConfigError, match="no handler"):
        await run_until_idle(mesh, Agent("idle"))


async def test_paused_work_is_left_alone(mesh: Mesh) -> None:
    agent = Agent("patient")
    agent.capability("rest")(lambda: None)
    await mesh.pause("rest")
    await mesh.enqueue("rest", id="later")
    assert (await run_until_idle(mesh, agent)).succeeded == 0
    assert await leaked_keys(mesh) == ["task later is queued, without a TTL", f"{mesh.keys.tasks('rest')} holds 1 that nobody has finished"]  # fmt: skip
    await mesh.resume("rest")
    assert (await run_until_idle(mesh, agent)).succeeded == 1
    assert await leaked_keys(mesh) == []
