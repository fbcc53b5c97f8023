"""What references mean here: known in memory, read from the registry, and followed as aliases move."""
