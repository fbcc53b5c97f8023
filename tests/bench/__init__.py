"""Tests of evaluation, load tests, storage and swap measurement, reports and the demo."""
