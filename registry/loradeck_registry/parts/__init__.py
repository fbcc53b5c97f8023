"""The parts of `Registry`, by what they do."""
