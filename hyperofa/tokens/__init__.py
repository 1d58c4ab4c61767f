"""Tokens of any tokenizer, and the words they are part of."""
