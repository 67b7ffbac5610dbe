"""Shards: packing, their index, and reading them back."""
