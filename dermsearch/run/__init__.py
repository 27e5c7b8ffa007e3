"""What a command does with a study: check it, plan it, run it, show it, write it down."""
