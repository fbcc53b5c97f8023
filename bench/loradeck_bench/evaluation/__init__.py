"""Quality of answers that came over gRPC: metrics, each with its library, version, settings and interval."""
