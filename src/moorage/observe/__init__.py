"""Observe: what the operator sees of a server; every module here only subscribes to events."""
