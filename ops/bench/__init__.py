"""What streammesh costs and how fast it is, measured beside what a bare client reaches on the same machine.

    ops/bench/run                          every group, 5 interleaved rounds, a table on stdout
    ops/bench/run throughput latency       only these
    ops/bench/run --json figures.json      the same as JSON, every round's value included
    ops/bench/run --slow                   with the groups that take minutes (a million tasks)

Each case has a server of its own (Valkey or Redis, append-only file synced every second, loopback) and agents as real
processes with no-op handlers; ids, records, results and fences are on. A shared machine changes its speed from minute to
minute, so the figures to trust are the ratios to the *floors*, which are measured in the same round.
"""
