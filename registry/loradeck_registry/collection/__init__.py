"""Garbage collection: leases, what is reachable, what retention retires, and the collection itself."""
