"""The loop under the fibers; knows nothing of servers."""
