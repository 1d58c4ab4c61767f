"""Grids of methods and settings, and what is written of them."""
