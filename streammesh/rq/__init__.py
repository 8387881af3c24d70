"""RQ beside the mesh: its functions as capabilities, its work-horses for handlers that leak, block or crash.

    done      what RQ's workers call at the end of a job; all that they need of streammesh
    bridge    a task becomes a job, once; its outcome comes back by callback, and by looking where a callback cannot come
    horses    private RQ workers of one agent, for isolation="rq"
    work      what such a worker runs
    queues    looking at queues, moving their jobs into the mesh, reading cron files

Everything on the wire is JSON. Install with `pip install 'streammesh[rq]'`.
"""
