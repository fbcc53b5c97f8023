"""Inference: the door for applications."""
