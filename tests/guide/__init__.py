"""Living docs: one idea a test, public interface only, to be read from top to bottom.

Start with `test_tasks`, then `test_waiting`, `test_retries`, `test_isolation`, `test_cancelling`, `test_dead_letters`, `test_agents`,
`test_messages` and `test_map`. Every test runs on a real server, twice: on a mesh with one shard and on one with three.
"""
