"""A cron file as RQ's users write it."""

from rq import cron

from tests.rq.reports import build, note

cron.register(build, queue_name="reports", kwargs={"title": "weekly"}, cron="0 7 * * 1")
cron.register(note, queue_name="notes", args=("/tmp/x", "hi"), interval=60)
cron.register(print, queue_name="notes", args=("hi",), interval=60)
