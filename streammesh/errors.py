"""Every error of streammesh, in one tree.

MeshError
  ConfigError                 an option, a name or a URL that cannot work
    InvalidName               a name or id outside its alphabet
    InvalidURL                a server URL with a typo
    InvalidVote               a vote or a collection that could not come to anything as it is put
    ServerUnfit               a server that would lose work: too old, evicting, a replica
    MeshMismatch              another layout, or another number of shards
    InvalidSchedule           a cron expression, time zone or policy that cannot work
  StoreUnavailable            the server cannot be reached, or refuses for now
    ServerFull                the server is out of memory; nothing was written
  PayloadError                a payload, result or message that cannot be carried
    InvalidPayload            not JSON, not an object, or not what the handler takes
    PayloadTooLarge           over the limit of bytes
  PayloadConflict             a known id came again with another payload
  TaskError                   what became of a task, told to the one who waits
    TaskFailed                the handler rejected it
    TaskDead                  it could not be done; it is kept as a dead letter
    TaskCancelled             somebody cancelled it
    TaskExpired               its deadline passed
    TaskNotFound              no record: never enqueued, or past its retention
    ResultTimeout             no outcome yet; the task goes on
  LeaseLost                   this attempt is no longer the task's owner
  RqJobFailed                 the job of RQ that did a task's work failed, was stopped, or is gone
  RunError                    what became of a run, or of a step in it
    StepFailed                a step's task could not be done, or its function raised
    StepInDoubt               a step that may run once at most had begun when its agent died
    RunFailed                 the workflow raised
    RunCancelled              the run was cancelled or terminated
    RunNotFound               no run of that id
    StepNotFound              the run has no step, or no open one, at that path
    RunConflict               a run of that id is there already, and on_conflict="fail"
    NonDeterminism            the workflow's code does not fit its journal
    HistoryFull               the journal is longer than it may be
    WorkflowRunaway           a workflow goes on and on without waiting for anything
  ScheduleNotFound            no schedule of that name
  AuctionError                what became of an auction
    NoBids                    nobody took the work: no bids, all refused, none acceptable or confirmed
    AuctionFailed             the work was awarded, and failed
    AuctionCancelled          the auction was cancelled
    AuctionExpired            its deadline passed
    AuctionNotFound           no auction of that id
  VoteError                   a vote, or a ballot in it
    VoteNotFound              no vote of that id
    VoteConflict              another vote has that id
    BallotRefused             not a voter, voted already, or the vote is closed
  MessageError                messages and requests between agents
    NoCapableAgent            nobody alive offers what was asked for
      NoVoters                nobody alive votes on that topic, or answers that type
    TooFewAnswers             fewer answers were collected than were needed
    BroadcastGap              messages were dropped unread: their reader fell behind what is kept
    UnknownAgent              no live agent has that id or name
    AgentDied                 the agent died with the request open
    NotUnderstood             the agent has no handler for that type
    RemoteError               the handler of the request raised
    Backpressure              the agent has more mail than it may; nothing was sent
    Refused                   the agent looked at the request and declined; nothing was done
    RequestTimeout            no answer before the deadline; outcome unknown
  BoundaryError               a flow of tasks and messages came to a boundary; nothing was sent
    HopLimit                  too many in a row, each caused by the one before
    Cycle                     forwarded to an agent that it has been with
    BudgetExceeded            too many in all, or from one
    DeadlinePassed            what it belongs to had to be done by now

Retry, Reject, Refuse, Defer  raised by handlers, caught by the agent
"""

from __future__ import annotations

__all__ = [
    "AgentDied", "AuctionCancelled", "AuctionError", "AuctionExpired", "AuctionFailed", "AuctionNotFound", "Backpressure", "BallotRefused", "BoundaryError", "BroadcastGap", "BudgetExceeded",
    "ConfigError", "Cycle", "DeadlinePassed", "Defer", "HistoryFull", "HopLimit", "InvalidName", "InvalidPayload", "InvalidSchedule", "InvalidURL", "InvalidVote", "LeaseLost", "MeshError",
    "MeshMismatch", "MessageError", "NoBids", "NoCapableAgent", "NoVoters", "NonDeterminism", "NotUnderstood", "PayloadConflict", "PayloadError", "PayloadTooLarge", "Refuse", "Refused", "Reject",
    "RemoteError", "RequestTimeout", "ResultTimeout", "Retry", "RqJobFailed", "RunCancelled", "RunConflict", "RunError", "RunFailed", "RunNotFound", "ScheduleNotFound", "ServerFull", "ServerUnfit",
    "StepFailed", "StepInDoubt", "StepNotFound", "StoreUnavailable", "TaskCancelled", "TaskDead", "TaskError", "TaskExpired", "TaskFailed", "TaskNotFound", "TooFewAnswers", "UnknownAgent",
    "VoteConflict", "VoteError", "VoteNotFound", "WorkflowRunaway",
]  # fmt: skip


class MeshError(Exception):
    """The root of everything streammesh raises on its own account."""


class ConfigError(MeshError):
    """An option, a name or a URL that cannot work; nothing was sent."""


class InvalidName(ConfigError):
    """A name or id outside its alphabet."""


class InvalidURL(ConfigError):
    """A server URL that cannot be understood. The text never holds the password."""


class InvalidVote(ConfigError):
    """A vote or a collection that could not come to anything as it is put; nothing was opened."""


class ServerUnfit(ConfigError):
    """The server answers, but would lose work: too old, evicting, read-only."""


class MeshMismatch(ConfigError):
    """The mesh in the server has another layout or another number of shards."""


class InvalidSchedule(ConfigError):
    """A cron expression, an interval, a time zone or a policy that cannot work; nothing was sent."""


class StoreUnavailable(MeshError):
    """The server cannot be reached, or refuses for now. A write that raised this is *unknown*, not failed: repeat it with the same id."""


class ServerFull(StoreUnavailable):
    """The server is out of memory (``OOM``); the refused call wrote nothing."""


class PayloadError(MeshError):
    """A payload, result or message that cannot be carried."""


class InvalidPayload(PayloadError):
    """Not JSON, not an object, or not what the handler takes."""


class PayloadTooLarge(PayloadError):
    """More bytes than the limit allows."""


class PayloadConflict(MeshError):
    """An id that is known came again with another payload; nothing was changed."""


class TaskError(MeshError):
    """What became of a task, told to the one who waits for it."""

    def __init__(self, message: str, *, id: str = "") -> None:
        super().__init__(message)
        self.id = id


class TaskFailed(TaskError):
    """The handler rejected the task: a final answer, not kept for replay."""


class TaskDead(TaskError):
    """The task could not be done (attempts used up, poison, bad payload); kept as a dead letter."""


class TaskCancelled(TaskError):
    """The task was cancelled before it finished."""


class TaskExpired(TaskError):
    """The task's deadline passed before it finished."""


class TaskNotFound(TaskError):
    """No record of that id: never enqueued here, or past its retention."""


class ResultTimeout(TaskError, TimeoutError):
    """No outcome yet. The task goes on; ask again by its id."""


class RqJobFailed(MeshError):
    """The job of RQ that did a task's work failed, was stopped, or is gone; the text is RQ's reason."""


class LeaseLost(MeshError):
    """This attempt no longer owns the task: another agent has it, or it was settled."""


class RunError(MeshError):
    """What became of a run, or of a step in it."""


class StepFailed(RunError):
    """A step's task could not be done, or a local step's function raised; the text is the error."""

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class StepInDoubt(RunError):
    """A step with ``at_most_once`` had begun when its agent died; whether it took effect is unknown."""


class RunFailed(RunError):
    """The workflow raised; the text is its error."""


class RunCancelled(RunError):
    """The run was cancelled or terminated."""


class RunNotFound(RunError):
    """No run of that id: never started here, or past its retention."""


class StepNotFound(RunError):
    """The run has no step, or no open one, at that path; the text lists those that it has."""


class RunConflict(RunError):
    """A run of that id is there already: the start said ``on_conflict="fail"``, or a fork needs an id of its own."""


class NonDeterminism(RunError):
    """The workflow's code does not fit its journal; the text says what was expected, what came, and where."""


class HistoryFull(RunError):
    """The journal is longer than a run's may be; end such workflows by `Run.continue_as_new` in time."""


class WorkflowRunaway(RunError):
    """A workflow goes on and on without waiting for anything outside; the text says where. Its run is stuck."""


class ScheduleNotFound(MeshError):
    """No schedule of that name: never made here, or removed."""


class AuctionError(MeshError):
    """What became of an auction, told to the one who waits for it."""

    def __init__(self, message: str, *, id: str = "") -> None:
        super().__init__(message)
        self.id = id


class NoBids(AuctionError):
    """Nobody took the work, and it was not to wait in a queue; the text holds the reason."""


class AuctionFailed(AuctionError):
    """The work was awarded, and failed: rejected, or dead; the text is its error."""


class AuctionCancelled(AuctionError):
    """The auction, or the work that it had awarded, was cancelled."""


class AuctionExpired(AuctionError):
    """The deadline passed before the work was done."""


class AuctionNotFound(AuctionError):
    """No auction of that id: never opened here, or past its retention."""


class VoteError(MeshError):
    """A vote, or a ballot in it."""


class VoteNotFound(VoteError):
    """No vote of that id: never opened here, or closed longer ago than it is kept."""


class VoteConflict(VoteError):
    """Another vote (another question, options or rules) has that id."""


class BallotRefused(VoteError):
    """The ballot was not taken: not a voter of this vote, voted already, or the vote is closed. ``word`` says which."""

    def __init__(self, message: str, *, word: str) -> None:
        super().__init__(message)
        self.word = word


class MessageError(MeshError):
    """A message or request between agents that did not get through."""


class NoCapableAgent(MessageError):
    """No live agent can. ``reason``: none_registered, all_paused, all_draining, all_suspect, all_full, all_open (their breakers), all_tried, no_subscriber."""

    def __init__(self, message: str, *, reason: str = "none_registered") -> None:
        super().__init__(message)
        self.reason = reason


class NoVoters(NoCapableAgent):
    """Nobody alive votes on that topic, or has a handler for that type."""


class TooFewAnswers(MessageError):
    """Fewer answers were collected than were needed. ``silent``, ``refused`` (agent -> why) and ``dead`` say who is missing."""

    def __init__(
        self, message: str, *, silent: tuple[str, ...] = (), refused: dict[str, str] | None = None, dead: tuple[str, ...] = ()
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.silent, self.refused, self.dead = silent, refused or {}, dead


class BroadcastGap(MessageError):
    """Messages were dropped unread, since a reader fell behind what is kept: ``lost`` of them (None: unknown), up to entry ``first``."""

    def __init__(self, message: str, *, first: str = "", lost: int | None = None) -> None:
        super().__init__(message)
        self.first, self.lost = first, lost


class UnknownAgent(MessageError):
    """No live agent has that id or name."""


class AgentDied(MessageError):
    """The agent died, or left, with the request open; whether it acted is unknown."""


class NotUnderstood(MessageError):
    """The agent has no handler for a message of that type."""


class RemoteError(MessageError):
    """The handler of the request raised; the text is its error."""


class Backpressure(MessageError):
    """The agent has more mail than it may; nothing was sent. ``length`` messages wait, ``retry_after`` is in seconds."""

    def __init__(self, message: str, *, length: int, retry_after: float) -> None:
        super().__init__(message)
        self.length, self.retry_after = length, retry_after


class Refused(MessageError):
    """The agent looked at the request and declined; nothing was done. ``retry_after`` in seconds, or None."""

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class RequestTimeout(MessageError, TimeoutError):
    """No answer before the deadline; whether the agent acted is unknown."""


class BoundaryError(MeshError):
    """A flow of tasks and messages came to a boundary; nothing was sent. Trying again does not help."""


class HopLimit(BoundaryError):
    """Too many messages and tasks in a row, each caused by the one before."""


class Cycle(BoundaryError):
    """A message was to be forwarded to an agent that it has been with."""


class BudgetExceeded(BoundaryError):
    """A flow has sent as many messages or tasks as it may, or one message caused too many."""


class DeadlinePassed(BoundaryError):
    """The deadline of the task or request that this belongs to has passed: it was surely not begun."""


class Retry(Exception):
    """Raised by a handler: run this task again ``after`` seconds, without counting a failure."""

    def __init__(self, after: float = 0.0, reason: str = "") -> None:
        super().__init__(reason or f"again after {after} s")
        self.after = max(0.0, float(after))


class Reject(Exception):
    """Raised by a handler: this task is refused for good; ``reason`` is the answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Refuse(Exception):
    """Raised by a handler before it did anything, or given by ``can_handle``: somebody else should have this (a task goes to
    another agent, a request ends as `Refused`); ``retry_after`` seconds later this agent may be asked again."""

    def __init__(self, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(reason or "refused")
        self.reason = reason or "refused"
        self.retry_after = retry_after


class Defer(Exception):
    """Raised by a handler before it did anything, or given by ``can_handle``: not now, again in ``seconds``, by whomever."""

    def __init__(self, seconds: float, reason: str = "") -> None:
        super().__init__(reason or f"deferred for {seconds} s")
        self.seconds = max(0.0, float(seconds))
