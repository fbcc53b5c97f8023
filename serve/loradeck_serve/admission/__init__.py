"""Admission: who may enter, who goes next, and how many adapters share the engine at a time."""
