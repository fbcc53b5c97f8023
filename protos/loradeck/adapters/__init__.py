"""Adapters: the admin door."""
