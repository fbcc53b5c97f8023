"""This server as one of several on a registry: it says that it lives, and takes part in moves made together."""
