"""Gossip as a state machine, in a network that loses, delays, doubles and cuts, on a clock of its own."""
