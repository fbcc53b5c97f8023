"""Bases: what a base is, finding one, bringing one in."""
