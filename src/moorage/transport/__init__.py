"""Transport: bytes to and from one socket; knows nothing of servers."""
