"""Every way to initialise a target vocabulary."""
