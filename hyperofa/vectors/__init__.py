"""Word vectors on disk and in search."""
