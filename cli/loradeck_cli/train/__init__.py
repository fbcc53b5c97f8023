"""`loradeck train`: train, plan, convert, build data."""
