"""The study file as typed models."""
