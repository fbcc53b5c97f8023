"""The studies' data: which sets they are, where they are public, and how they come into place, checked."""
