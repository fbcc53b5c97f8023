"""`loradeck registry`: keep, show, move and verify revisions."""
