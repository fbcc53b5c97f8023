"""Tests of who may do what at the doors."""
