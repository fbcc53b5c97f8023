"""Soak: one server under mixed, hostile load for long, and whether anything of it stays behind."""
