"""The librarian: every worker in one process, so that any of them can finish what another one began.

For a small machine, and for `ops/demo`. On a larger one run the workers apart and scale each by its own load.
"""

from streammesh import Agent
from workers import critic, digest, editor, keywords, reader, summarizer

agent = Agent("librarian", slots=4)

for worker in (reader, keywords, summarizer, critic, editor, digest):
    agent.include(worker.agent)


if __name__ == "__main__":
    agent.run()
