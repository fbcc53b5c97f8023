"""`loradeck adapters`: what servers hold."""
