"""Input that is damaged on purpose, thrown at every door that data from outside comes through."""
