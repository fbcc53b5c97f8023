"""`loradeck eval`: quality of what is served, and of files."""
