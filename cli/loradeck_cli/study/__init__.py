"""`loradeck study`: repeat a published study."""
