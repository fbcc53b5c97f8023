"""Fuzzing of the doors with an engine at the seam, in a process of its own; and of the registry's reader."""
