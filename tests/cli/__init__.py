"""The command line as people and scripts use it, on real servers and with real processes."""
