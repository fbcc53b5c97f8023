"""Traces of requests: where each one spent its time, for OpenTelemetry collectors."""
