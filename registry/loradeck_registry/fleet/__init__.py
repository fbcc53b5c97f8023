"""Several servers on one registry: who is alive, and moves of an alias that all of them make together or none."""
