"""Agents among themselves: who is here, whom to doubt, and what they tell each other."""
