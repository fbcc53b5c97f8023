"""What is told about a running server: its metrics, and what happens to its adapters."""
