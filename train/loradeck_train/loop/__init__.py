"""The training loop, its watchers and checkpoints."""
