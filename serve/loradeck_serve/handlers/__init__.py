"""Handlers: what each RPC means, free of any transport."""
