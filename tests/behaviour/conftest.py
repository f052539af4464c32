"""Behaviours, each at every place: see support/places.py."""

from support.places import house, journal, latch, pytest_configure, pytest_generate_tests

__all__ = ["house", "journal", "latch", "pytest_configure", "pytest_generate_tests"]
