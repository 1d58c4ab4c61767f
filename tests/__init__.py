"""What is promised, room by room."""
