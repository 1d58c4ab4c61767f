"""Continual pretraining of an exported model."""
