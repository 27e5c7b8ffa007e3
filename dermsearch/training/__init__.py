"""Training one stage: the loop, its checkpoints, its precision, and Ray Train around it."""
