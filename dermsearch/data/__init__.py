"""Cases: where they come from, how they are stored, and the views that tasks see of them."""
