"""The registry: immutable revisions and movable aliases in a folder or a bucket."""
