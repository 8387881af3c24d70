"""The tests: guide/ reads as documentation, lua/ holds every arrow of every script, the rest mirrors the modules."""
