"""The native twins: one optional extension, `engine`, with the same names and behaviour as the pure rooms."""
