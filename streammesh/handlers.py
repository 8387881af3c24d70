"""Handlers: what a capability runs, how a payload becomes its arguments, and what a failure leads to."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

import tenacity

from streammesh import codec
from streammesh.cards import Skill
from streammesh.errors import ConfigError, InvalidPayload
from streammesh.keys import check_name
from streammesh.record import Lineage, lineage

if TYPE_CHECKING:
    from streammesh.mesh import Mesh

__all__ = [
    "Handler",
    "Isolation",
    "Options",
    "TaskContext",
    "in_process",
    "in_thread",
    "sendable",
    "short",
    "told",
    "verdict_on",
]

Isolation = Literal["inline", "thread", "process", "rq"]
_Result = TypeVar("_Result")


class Options(TypedDict, total=False):
    """The options of a capability, as in `Agent.capability`."""

    retries: int
    retry: tenacity.BaseRetrying | None
    timeout: float | None
    isolation: Isolation | None
    retention: float | None
    version: int
    metadata: Mapping[str, str] | None


#: The most characters of a capability's metadata, names and values together: they travel with every beat.
METADATA = 1024
#: The most characters of an error that are kept.
LONGEST_ERROR = 4096

#: The wait between attempts where a capability has `retries=` but no policy of its own: seconds, doubling, with jitter.
DEFAULT_WAIT = tenacity.wait_random_exponential(multiplier=1.0, max=60.0)


@dataclass(slots=True, eq=False)
class TaskContext:
    """What a handler may know and do about the task it works on; a parameter annotated with it receives it.

    ``attempt`` only grows (the fence), ``failures`` counts the attempts that failed, ``deadline`` is ms since 1970.
    """

    id: str
    capability: str
    attempt: int
    failures: int
    headers: Mapping[str, str]
    deadline: int | None
    correlation: str
    mesh: Mesh
    loop: asyncio.AbstractEventLoop
    report: Callable[[TaskContext, Any], None]
    #: What the task passes on to whatever it causes.
    line: Lineage
    #: True once somebody asked to cancel the task: a handler in a thread should look now and then, and return.
    cancel_requested: bool = field(default=False)

    @property
    def agent(self) -> str:
        """The id of the agent that works on it."""
        return self.line.agent

    def progress(self, done: Any, total: Any = None, note: str = "") -> None:
        """Say how far the task has come (from any thread); written at once when idle, else the newest of a burst."""
        value: dict[str, Any] = {"done": done}
        if total is not None:
            value["total"] = total
        if note:
            value["note"] = note
        self.loop.call_soon_threadsafe(self.report, self, value)

    def run(self, work: Coroutine[Any, Any, _Result], timeout: float | None = None) -> _Result:
        """From a handler in a thread: run ``work`` (such as ``ctx.mesh.enqueue(…)``) on the agent's loop and return its result."""
        line = self.line

        async def inherit() -> _Result:
            lineage.set(line)
            return await work

        return asyncio.run_coroutine_threadsafe(inherit(), self.loop).result(timeout)


@dataclass(frozen=True, slots=True)
class Handler:
    """A capability and the function behind it."""

    capability: str
    function: Callable[..., Any]
    isolation: Isolation
    timeout: float | None
    retention: float | None
    policy: tenacity.BaseRetrying | None
    asynchronous: bool
    context: str | None
    required: frozenset[str]
    allowed: frozenset[str]
    anything: bool
    builders: Mapping[str, Callable[[Any], Any]]
    skill: Skill

    @staticmethod
    def make(
        capability: str,
        function: Callable[..., Any],
        *,
        retries: int = 0,
        retry: tenacity.BaseRetrying | None = None,
        timeout: float | None = None,
        isolation: Isolation | None = None,
        retention: float | None = None,
        version: int = 1,
        metadata: Mapping[str, str] | None = None,
    ) -> Handler:
        """Check a handler when it is declared. Raises ConfigError with what is wrong and what to write instead."""
        check_name(capability, "capability")
        asynchronous = inspect.iscoroutinefunction(function)
        isolation = isolation or ("inline" if asynchronous else "thread")
        where = f"capability {capability!r}"
        if isolation not in ("inline", "thread", "process", "rq"):
            raise ConfigError(
                f"{where}: isolation={isolation!r} is not known; expected 'inline', 'thread', 'process' or 'rq'"
            )
        if isolation == "inline" and not asynchronous:
            raise ConfigError(
                f"{where}: a plain def cannot run inline, it would stop the whole agent; leave isolation out, or use async def"
            )
        if isolation == "thread" and asynchronous:
            raise ConfigError(
                f"{where}: an async def runs on the loop; leave isolation out, or use 'process', or a plain def"
            )
        if retries and retry is not None:
            raise ConfigError(
                f"{where}: retries= and retry= are both given; put stop_after_attempt into the policy instead"
            )
        if retries < 0:
            raise ConfigError(f"{where}: retries={retries!r} is not usable; expected a whole number from 0")
        if timeout is not None and not timeout > 0:
            raise ConfigError(f"{where}: timeout={timeout!r} is not usable; expected seconds above 0, or None")
        skill = _skill(where, version, metadata or {})
        policy = retry
        if policy is None and retries:
            policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(retries + 1), wait=DEFAULT_WAIT)
        context, required, allowed, anything, builders = _signature(where, function)
        if isolation == "rq":
            _needs_rq(where, function)
        if context and isolation in ("process", "rq"):
            raise ConfigError(
                f"{where}: a handler in a process of its own cannot take a TaskContext; use a thread, or leave it out"
            )
        return Handler(
            capability, function, isolation, timeout, retention, policy, asynchronous, context, required, allowed, anything, builders, skill
        )  # fmt: skip

    def bind(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments that ``payload`` stands for. Raises InvalidPayload when it does not fit."""
        names = payload.keys()
        if not self.required <= names or not (self.anything or names <= self.allowed):
            missing = ", ".join(sorted(self.required - names))
            unknown = ", ".join(sorted(names - self.allowed)) if not self.anything else ""
            parts = ([f"misses {missing}"] if missing else []) + ([f"has the unknown {unknown}"] if unknown else [])
            raise InvalidPayload(f"the payload {' and '.join(parts)}; {self.capability} takes {self.usage()}")
        for name, build in self.builders.items():
            if name in payload:
                try:
                    payload[name] = build(payload[name])
                except Exception as error:
                    raise InvalidPayload(f"the field {name!r} of the payload does not fit: {error}") from None
        return payload

    def usage(self) -> str:
        """The parameters in one line."""
        names = [*sorted(self.required), *(f"{name}?" for name in sorted(self.allowed - self.required))]
        return ", ".join(names + (["…"] if self.anything else [])) or "nothing"

    def card(self) -> dict[str, str]:
        """What the capability says of itself in its hash."""
        doc = (inspect.getdoc(self.function) or "").strip().partition("\n")[0]
        fields = {"takes": self.usage(), "isolation": self.isolation}
        if doc:
            fields["description"] = doc[:200]
        if self.timeout:
            fields["timeout"] = str(self.timeout)
        return fields


def _skill(where: str, version: int, metadata: Mapping[str, str]) -> Skill:
    if type(version) is not int or version < 1:
        raise ConfigError(f"{where}: version={version!r} is not usable; expected a whole number from 1")
    if not all(codec.is_text(word) for pair in metadata.items() for word in pair):
        raise ConfigError(f"{where}: metadata={metadata!r} is not usable; expected names and values that are texts")
    if sum(len(name) + len(value) for name, value in metadata.items()) > METADATA:
        raise ConfigError(
            f"{where}: its metadata is too long; {METADATA} characters are allowed, it travels with every beat"
        )
    return Skill(version, dict(metadata))


def _needs_rq(where: str, function: Callable[..., Any]) -> None:
    if find_spec("rq") is None:
        raise ConfigError(f"{where}: isolation='rq' needs RQ: pip install 'streammesh[rq]'")
    if "<locals>" in function.__qualname__ or function.__module__ == "__main__":
        raise ConfigError(
            f"{where}: with isolation='rq' another process imports the function, so it has to be at the top of a module "
            f"that can be imported; {function.__module__}:{function.__qualname__} cannot"
        )


def _signature(
    where: str, function: Callable[..., Any]
) -> tuple[str | None, frozenset[str], frozenset[str], bool, dict[str, Callable[[Any], Any]]]:
    try:
        hints = typing.get_type_hints(function)
    except Exception:
        # An annotation that only a type checker can resolve: run without it.
        hints = {}
    context = None
    required, allowed, anything = set(), set(), False
    builders: dict[str, Callable[[Any], Any]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints.get(name)
        if hint in (TaskContext, TaskContext | None) or parameter.annotation in (
            "TaskContext",
            "streammesh.TaskContext",
        ):
            context = name
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            anything = True
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise ConfigError(
                f"{where}: the parameter {name!r} is positional; a payload is an object, so every parameter needs a name"
            )
        else:
            allowed.add(name)
            if parameter.default is parameter.empty:
                required.add(name)
            build = _builder(hint)
            if build:
                builders[name] = build
    return context, frozenset(required), frozenset(allowed), anything, builders


def _builder(hint: Any) -> Callable[[Any], Any] | None:
    """How a JSON value becomes a ``hint``: dataclasses from objects, pydantic models by their own validation."""
    if not isinstance(hint, type):
        return None
    if hasattr(hint, "model_validate"):
        return typing.cast("Callable[[Any], Any]", hint.model_validate)
    if dataclasses.is_dataclass(hint):
        kind: Callable[..., Any] = hint

        def build(value: Any) -> Any:
            if not isinstance(value, dict):
                raise InvalidPayload(f"expected an object for {hint.__name__}, got {type(value).__name__}")
            return kind(**value)

        return build
    return None


def verdict_on(handler: Handler, error: BaseException, failures: int, elapsed: float) -> float | None:
    """Seconds until the next attempt after ``error``, or None when the budget is used up.

    The arithmetic is tenacity's, asked once per failure with the counters of the record: nothing waits in this process.
    ``elapsed`` is seconds since the task was enqueued.
    """
    policy = handler.policy
    if policy is None:
        return None
    state = tenacity.RetryCallState(retry_object=policy, fn=None, args=(), kwargs={})
    state.attempt_number = failures + 1
    state.start_time = 0.0
    outcome = tenacity.Future(state.attempt_number)
    outcome.set_exception(error)
    state.outcome = outcome
    state.outcome_timestamp = elapsed
    if not policy.retry(state):
        return None
    state.upcoming_sleep = wait = float(policy.wait(state))
    return None if policy.stop(state) else wait


def in_process(function: Callable[..., Any], asynchronous: bool, payload: bytes) -> bytes:
    """Runs in the other process: JSON in, JSON out."""
    kwargs = codec.decode_object(payload)
    if asynchronous:
        work: Awaitable[Any] = function(**kwargs)

        async def main() -> Any:
            return await work

        return codec.encode(asyncio.run(main()), what="result")
    return codec.encode(function(**kwargs), what="result")


def short(text: str) -> str:
    return sendable(text if len(text) <= LONGEST_ERROR else text[: LONGEST_ERROR - 1] + "…")


def sendable(text: str) -> str:
    """As UTF-8 can carry it: one text that it cannot would stop all outcomes that travel with it."""
    return text.encode(errors="backslashreplace").decode()


def told(error: BaseException) -> str:
    try:
        said = str(error)
    except Exception:
        said = "its text cannot be told"
    return short(f"{type(error).__name__}: {said}" if said else type(error).__name__)


def in_thread(function: Callable[[], Any]) -> Any:
    """In a thread: a StopIteration cannot pass a future (before Python 3.12 nobody would ever hear of it)."""
    try:
        return function()
    except StopIteration as stop:
        raise RuntimeError(f"StopIteration: {stop}") from stop
