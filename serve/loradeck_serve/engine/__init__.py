"""The engine: what the rest of the server asks of it (`base`), and vLLM behind it."""
