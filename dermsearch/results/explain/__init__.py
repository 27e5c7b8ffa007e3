"""Why curricula score as they do."""
