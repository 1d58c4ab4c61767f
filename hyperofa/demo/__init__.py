"""The embedded default: a small multilingual world, and every method on it."""
