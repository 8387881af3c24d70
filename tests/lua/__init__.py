"""The scripts of streammesh/lua on real servers: every arrow of a task's states, and every refused one."""
