"""Rows to batches of token ids."""
