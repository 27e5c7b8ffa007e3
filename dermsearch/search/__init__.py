"""The search: what may be proposed, who proposes, which stages are missing, and who trains them."""
