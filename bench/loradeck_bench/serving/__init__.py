"""Benchmarks of serving that need nothing but a base: adapters, front end, hot swap, and more adapters than slots."""
