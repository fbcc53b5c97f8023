"""Fuzzing: mutated requests to a live server, mutated objects to the registry's reader. Nothing may break or hang."""
