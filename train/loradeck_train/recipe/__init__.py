"""Recipes: what decides a training run."""
