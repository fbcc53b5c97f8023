"""The wire of loradeck: generated message and service classes, one package per area and version."""
