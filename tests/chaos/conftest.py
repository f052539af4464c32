"""Attacks and accidents; at one place where the place does not matter."""

from support.places import house, journal, latch, pytest_configure, pytest_generate_tests

__all__ = ["house", "journal", "latch", "pytest_configure", "pytest_generate_tests"]
