"""Processes: what runs a Server for an operator: targets, programs, signals, `serve()`."""
