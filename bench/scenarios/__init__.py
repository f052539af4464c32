"""One question a file; each has a SCENARIO."""
