"""What tasks see of a picture."""
