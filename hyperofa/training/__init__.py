"""What trains a hypernetwork: batches, losses, metrics, the data module and the module."""
