"""What can be said of the inputs before anything is trained."""
