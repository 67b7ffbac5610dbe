"""Damaged input, fed to every parser and command that reads files."""
