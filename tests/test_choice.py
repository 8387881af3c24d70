"""choice: two choices, affinity, and the herd that least-loaded makes of old counters (a seeded simulation)."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streammesh.choice import affine, least_loaded, two_choices


@dataclass
class One:
    id: str
    load: float = 0.0


def test_two_choices_takes_the_less_loaded_of_two() -> None:
    some = [One(f"a.{n}", n / 10) for n in range(10)]
    rng = random.Random(1)
    drawn = Counter(two_choices(some, rng).id for _ in range(2000))
    assert drawn["a.9"] == 0, "never the worst of all"
    assert drawn["a.0"] > drawn["a.4"] > drawn["a.8"]
    assert two_choices(some[:1], rng) is some[0]


def test_a_leaver_moves_only_its_own_keys() -> None:
    some = [One(f"a.{n}") for n in range(8)]
    before = {key: affine(some, key).id for key in map(str, range(1000))}
    assert all(80 <= count <= 175 for count in Counter(before.values()).values()), "spread about evenly"
    after = {key: affine(some[1:], key).id for key in before}
    assert {key for key in before if before[key] != after[key]} == {key for key in before if before[key] == "a.0"}


def test_least_loaded_is_by_id_where_loads_are_equal() -> None:
    assert least_loaded([One("b.2"), One("a.1"), One("c.3", 0.5)]).id == "a.1"


# -- the herd: 20 workers of one slot at 80 % load; mean time in system in service times (1.0 would be no waiting at all)

WORKERS, LOAD, TASKS = 20, 0.8, 30_000


def simulate(choose: Callable[[Sequence[One], random.Random], One], age: float, seed: int = 7) -> tuple[float, float]:
    """(mean time in system, Jain's fairness of work done) when the loads that ``choose`` sees are renewed every ``age``."""
    rng = random.Random(seed)
    free_at = [0.0] * WORKERS
    leaves: list[list[float]] = [[] for _ in range(WORKERS)]
    seen = [One(f"w.{n:02}") for n in range(WORKERS)]
    looked, now, spent = float("-inf"), 0.0, []
    done = [0] * WORKERS
    for _ in range(TASKS):
        now += rng.expovariate(WORKERS * LOAD)
        if now - looked >= age:
            looked = now
            for n, queue in enumerate(leaves):
                while queue and queue[0] <= now:
                    heapq.heappop(queue)
                seen[n].load = len(queue)
        at = seen.index(choose(seen, rng))
        free_at[at] = max(now, free_at[at]) + rng.expovariate(1.0)
        heapq.heappush(leaves[at], free_at[at])
        spent.append(free_at[at] - now)
        done[at] += 1
    rest = spent[TASKS // 5 :]
    return sum(rest) / len(rest), sum(done) ** 2 / (WORKERS * sum(one * one for one in done))


def pull(seed: int = 7) -> tuple[float, float]:
    """The same when whoever is free takes the oldest task."""
    rng = random.Random(seed)
    free_at = [0.0] * WORKERS
    now, spent, done = 0.0, [], [0] * WORKERS
    for _ in range(TASKS):
        now += rng.expovariate(WORKERS * LOAD)
        # Of those who wait in a blocking read, the server serves the one who waits longest.
        at = min(range(WORKERS), key=free_at.__getitem__)
        free_at[at] = max(now, free_at[at]) + rng.expovariate(1.0)
        spent.append(free_at[at] - now)
        done[at] += 1
    rest = spent[TASKS // 5 :]
    return sum(rest) / len(rest), sum(done) ** 2 / (WORKERS * sum(one * one for one in done))


def by_two_choices(seen: Sequence[One], rng: random.Random) -> One:
    return two_choices(seen, rng)


def by_least_loaded(seen: Sequence[One], rng: random.Random) -> One:
    """Equal loads are drawn at random: kinder to it than taking the first."""
    least = min(one.load for one in seen)
    return rng.choice([one for one in seen if one.load == least])


def test_pull_is_the_best_and_fair() -> None:
    mean, fairness = pull()
    assert mean <= 1.3
    assert fairness >= 0.95


def test_on_old_counters_least_loaded_herds_and_two_choices_does_not() -> None:
    two, _ = simulate(by_two_choices, age=5.0)
    least, _ = simulate(by_least_loaded, age=5.0)
    assert two <= 3.6, f"two choices on counters up to 5 service times old: {two:.2f}"
    assert least >= 1.5 * two, f"least-loaded {least:.2f} against two choices {two:.2f}: the README says it is worse"
    drawn, _ = simulate(lambda seen, rng: rng.choice(seen), age=5.0)
    assert least > drawn, f"least-loaded {least:.2f} against random {drawn:.2f}"


def test_on_live_counters_least_loaded_is_the_better_one() -> None:
    assert simulate(by_least_loaded, age=0.0)[0] < simulate(by_two_choices, age=0.0)[0]
