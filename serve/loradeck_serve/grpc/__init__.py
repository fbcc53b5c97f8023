"""The gRPC doors: servicers, conversion, error mapping, health and reflection."""
