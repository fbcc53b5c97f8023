"""Residency: which adapter revisions are in the engine, and how they get there and leave."""
