"""The server: one base model, many hot-swappable adapters, behind gRPC doors."""
