"""Answers with a form of their own: a number at the end, a meaning representation, an SQL query."""
