"""What lies in a stage store, whether it is sound, and what may go."""
