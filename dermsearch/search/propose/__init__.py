"""Who proposes curricula, and what it learns of how they came out."""
