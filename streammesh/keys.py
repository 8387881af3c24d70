"""Every key of a mesh, and what it holds. Nothing else in the project spells a key.

A mesh ``mesh`` with S shards owns the hash tags ``{mesh}`` (shard 0) and ``{mesh.1}`` … ``{mesh.S-1}``.
A task lives whole in the shard ``crc32(id) % S``; a task that came by a raw ``XADD`` lives where it was added, and its id says so.
Registry, members, control and broadcast live in shard 0. Scripts get a shard's prefix (``{mesh}:``) and append the same words.

    {mesh}:meta                    HASH    layout, shards, created_at, epoch (the last one given out)
    {mesh}:tasks:<capability>      STREAM  group `agents`: unfinished tasks; lanes `:high` and `:low` when used
    {mesh}:sent:<message>          STRING  a message that was delivered; TTL a minute
    {mesh}:inbox:<agent>           STREAM  group `agents`: tasks for one agent
    {mesh}:mail:<agent>            STREAM  group `agents`: messages for one agent; heard also when all its slots are busy
    {mesh}:task:<id>               HASH    the record of a task; TTL once it is finished
    {mesh}:inboxes                 ZSET    agent id -> ms at which its inbox or mail in this shard was made
    {mesh}:runs:<workflow>         STREAM  group `agents`: wake-ups, at most one for each run; `<workflow>@<version>` from version 2 on
    {mesh}:run:<id>                HASH    the head of a run; TTL once it has ended
    {mesh}:run:<id>:journal        LIST    what happened in the run, as readable JSON; TTL once it has ended
    {mesh}:run:<id>:large          HASH    place in the journal -> the whole of a record above 16 KiB; TTL once it has ended
    {mesh}:vote:<id>               HASH    a vote, or a collection of answers; TTL once it is closed
    {mesh}:vote:<id>:ballots       HASH    agent -> its ballot; TTL once it is closed
    {mesh}:vote:<id>:audit         STREAM  opening, ballots, refusals, deaths, closing; TTL once it is closed
    {mesh}:votes                   ZSET    vote -> ms until which it is listed
    {mesh}:workflows               SET     workflows that were ever started in this shard
    {mesh}:user:<name>             any     what workflows keep themselves (Run.redis), in the shard of the run that wrote it
    {mesh}:due                     ZSET    ms -> task:<id>: delayed tasks and retries; run <id> <path>: timers; schedule <name>; auction <id>; vote <id>
    {mesh}:schedule:<name>         HASH    a schedule: its definition, its next occurrence, what it started last
    {mesh}:schedules               SET     names of the schedules in this shard
    {mesh}:auction:<id>            HASH    an auction; TTL once it has ended
    {mesh}:auction:<id>:bids       HASH    bidder -> its answer, as readable JSON; TTL once it has ended
    {mesh}:auction:<id>:audit      STREAM  what happened in it, bounded; TTL once it has ended
    {mesh}:auctions                ZSET    unfinished auctions -> ms at which they were opened
    {mesh}:history:<capability>    HASH    agent name -> how works that it had won went; TTL
    {mesh}:dead:<capability>       STREAM  dead letters
    {mesh}:clock                   STRING  by how many ms a mesh under test is ahead of the server; in no other mesh
    {mesh}:caps                    SET     capabilities that were ever used in this shard
    {mesh}:corr:<flow>             HASH    what a flow has sent so far, and boundaries that it came to; TTL an hour
    {mesh}:flow:<flow>             LIST    its story, as readable JSON: what was sent, and heard; TTL a day
    {mesh}:refused                 HASH    guard -> how often it refused something
    {mesh}:replies:<client>        STREAM  results pushed to a waiting client; TTL
    {mesh}:sweep                   HASH    when this shard was last swept, and the grace after a stall
    {mesh}:events                  STREAM  audit tail, bounded
    {mesh}:agents                  ZSET    agent id -> ms of its last beat
    {mesh}:agent:<id>              HASH    an agent's card; TTL = its lease
    {mesh}:vanished                ZSET    agent id -> ms until which its work may move at once; `evicted <id>` -> ms until which it is not let back
    {mesh}:look                    STRING  whose turn it was to ask who is connected; TTL half a second
    {mesh}:seen:<server>           SET     agents that were seen connected since that server began; TTL
    {mesh}:cap:<capability>        HASH    paused, retries, timeout, description
    {mesh}:cap:<capability>:agents SET     ids of the agents that offer it
    {mesh}:members                 STREAM  joins, deaths, leaves, in order, bounded
    {mesh}:broadcast               STREAM  messages for everybody, bounded
    {mesh}:gossip:<agent>          STREAM  frames of gossip for one agent, bounded; TTL
    {mesh}:topic:<topic>           STREAM  messages published on a topic, bounded; a group for each group of subscribers
    {mesh}:topic:<topic>:readers   ZSET    subscribers without a group -> ms until which they count; TTL
    {mesh}:topics                  HASH    topic -> messages published so far (*: broadcasts); with a group: the last one it was given
    {mesh}:control                 STREAM  pause, resume, drain, cancel: every operator's act, bounded
    {mesh}:rq                      STREAM  jobs of RQ that have ended, for the bridges that wait for them, bounded
"""

from __future__ import annotations

import re
from binascii import crc32
from dataclasses import dataclass
from hashlib import sha1

from streammesh.errors import InvalidName

__all__ = ["GROUP", "LANES", "Keys", "check_id", "check_name", "check_run_id", "raw_tag"]

GROUP = "agents"
#: The most characters of a run's id before its first colon.
LONGEST_RUN = 80
LANES = ("high", "normal", "low")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}\Z")
_RAW_ID = re.compile(r"r[0-9a-f]{4}(?:\.(\d+))?-\d+-\d+\Z")


def check_name(name: object, what: str = "name") -> str:
    """Return ``name`` if it is a legal name of a capability, agent or mesh; raise InvalidName otherwise."""
    if isinstance(name, str) and _NAME.match(name):
        return name
    raise InvalidName(
        f"{what} {_shown(name)} is not usable: expected 1 to 64 characters of a-z 0-9 . _ - beginning with a letter or digit"
    )


def check_id(id: object, what: str = "id") -> str:
    """Return ``id`` if it is a legal task id; raise InvalidName otherwise."""
    if isinstance(id, str) and _ID.match(id):
        return id
    raise InvalidName(f"{what} {_shown(id)} is not usable: expected 1 to 128 characters of A-Z a-z 0-9 _ . : -")


def check_run_id(id: object) -> str:
    """Return ``id`` if a new run may have it; raise InvalidName otherwise.

    What belongs to a run begins with its id, and lives in the shard of what is before the first colon: that has to fit in.
    """
    text = check_id(id, "run id")
    if len(text.partition(":")[0]) > LONGEST_RUN:
        raise InvalidName(
            f"run id {_shown(id)} is not usable: its part before the first colon has more than {LONGEST_RUN} characters, and the "
            f"ids of its steps begin with it"
        )
    return text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def raw_tag(stream: str, shard: int) -> str:
    """The word that a raw ``XADD`` task's id begins with: ``r`` + 4 hex digits of the stream's key (+ ``.shard`` past 0).

    Two streams can mint one entry id in the same millisecond, so the entry id alone would not be unique.
    """
    return f"r{sha1(stream.encode()).hexdigest()[:4]}" + (f".{shard}" if shard else "")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one mesh: ``namespace`` and its fixed number of ``shards``."""

    namespace: str
    shards: int = 1

    def __post_init__(self) -> None:
        check_name(self.namespace, "namespace")

    def prefix(self, shard: int = 0) -> str:
        """``{mesh}:`` for shard 0, ``{mesh.3}:`` for shard 3: what scripts get as their first key."""
        return f"{{{self.namespace}.{shard}}}:" if shard else f"{{{self.namespace}}}:"

    def shard_of(self, id: str) -> int:
        """The shard in which the task ``id`` lives."""
        if self.shards == 1:
            return 0
        # What belongs to a run has the run's id before a colon, and lives with it.
        id = id.removeprefix("run ").removeprefix("auction ").removeprefix("vote ").partition(":")[0]
        raw = _RAW_ID.match(id)
        if raw:
            return int(raw[1] or 0) % self.shards
        return crc32(id.encode()) % self.shards

    def runs(self, stream: str, shard: int = 0) -> str:
        return f"{self.prefix(shard)}runs:{stream}"

    def workflows(self, shard: int = 0) -> str:
        return f"{self.prefix(shard)}workflows"

    def run(self, id: str) -> str:
        return f"{self.prefix(self.shard_of(id))}run:{id}"

    def schedule(self, name: str) -> str:
        return f"{self.prefix(self.shard_of(name))}schedule:{name}"

    def schedules(self, shard: int = 0) -> str:
        return f"{self.prefix(shard)}schedules"

    def vote(self, id: str) -> str:
        return f"{self.prefix(self.shard_of(id))}vote:{id}"

    def votes(self, shard: int = 0) -> str:
        return f"{self.prefix(shard)}votes"

    def large(self, id: str) -> str:
        return f"{self.run(id)}:large"

    def task(self, id: str) -> str:
        return f"{self.prefix(self.shard_of(id))}task:{id}"

    def tasks(self, capability: str, priority: str = "normal", shard: int = 0) -> str:
        lane = "" if priority == "normal" else f":{priority}"
        return f"{self.prefix(shard)}tasks:{capability}{lane}"

    def inbox(self, agent: str, shard: int = 0) -> str:
        return f"{self.prefix(shard)}inbox:{agent}"

    def mail(self, agent: str, shard: int = 0) -> str:
        return f"{self.prefix(shard)}mail:{agent}"

    def user(self, name: str, shard: int = 0) -> str:
        return f"{self.prefix(shard)}user:{name}"

    def inboxes(self, shard: int = 0) -> str:
        return f"{self.prefix(shard)}inboxes"

    def clock(self, shard: int = 0) -> str:
        return f"{self.prefix(shard)}clock"

    def gossip(self, agent: str) -> str:
        return f"{self.prefix()}gossip:{agent}"

    def dead(self, capability: str, shard: int = 0) -> str:
        return f"{self.prefix(shard)}dead:{capability}"

    def auction(self, id: str) -> str:
        return f"{self.prefix(self.shard_of(id))}auction:{id}"

    def due(self, shard: int = 0) -> str:
        return f"{self.prefix(shard)}due"

    def caps(self, shard: int = 0) -> str:
        return f"{self.prefix(shard)}caps"

    def replies(self, client: str, shard: int = 0) -> str:
        return f"{self.prefix(shard)}replies:{client}"

    def events(self, shard: int = 0) -> str:
        return f"{self.prefix(shard)}events"

    def agent(self, id: str) -> str:
        return f"{self.prefix()}agent:{id}"

    def cap(self, capability: str) -> str:
        return f"{self.prefix()}cap:{capability}"

    def cap_agents(self, capability: str) -> str:
        return f"{self.prefix()}cap:{capability}:agents"

    def flow(self, id: str, shard: int = 0) -> str:
        return f"{self.prefix(shard)}flow:{id}"

    def refused(self, shard: int = 0) -> str:
        return f"{self.prefix(shard)}refused"

    @property
    def meta(self) -> str:
        return f"{self.prefix()}meta"

    @property
    def agents(self) -> str:
        return f"{self.prefix()}agents"

    @property
    def look(self) -> str:
        return f"{self.prefix()}look"

    def seen(self, server: str) -> str:
        return f"{self.prefix()}seen:{server}"

    def owner(self, agent: str) -> str:
        """What the names of an agent's connections begin with, before a colon."""
        return f"{self.namespace}/{agent}"

    @property
    def members(self) -> str:
        return f"{self.prefix()}members"

    @property
    def broadcast(self) -> str:
        return f"{self.prefix()}broadcast"

    def topic(self, name: str) -> str:
        return f"{self.prefix()}topic:{name}"

    @property
    def topics(self) -> str:
        return f"{self.prefix()}topics"

    @property
    def rq(self) -> str:
        return f"{self.prefix()}rq"

    @property
    def control(self) -> str:
        return f"{self.prefix()}control"
