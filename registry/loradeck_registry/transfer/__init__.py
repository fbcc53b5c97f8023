"""Revisions from and to elsewhere: import with conversion, export, bundles, and two of them side by side."""
