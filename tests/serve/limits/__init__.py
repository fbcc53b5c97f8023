"""Tests of what a caller cannot do to the doors, however hard he tries."""
