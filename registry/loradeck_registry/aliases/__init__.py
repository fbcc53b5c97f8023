"""Movable aliases: their logs, and the gates and protection in front of a move."""
