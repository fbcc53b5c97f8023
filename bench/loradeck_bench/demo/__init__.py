"""The whole story on one machine: train, publish, serve, query, evaluate, swap, load-test, report."""
