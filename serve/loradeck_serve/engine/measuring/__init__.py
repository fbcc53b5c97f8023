"""Commands that measure the engine itself, each of which is a module to run: `python -m loradeck_serve.engine.…`."""
