"""From a method's rows to a model folder."""
