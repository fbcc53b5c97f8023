"""Trained weights as proven, published revisions."""
