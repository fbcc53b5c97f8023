"""`loradeck bench`: load tests and other measurements."""
