"""A paper's tables with a study's numbers beside the printed ones."""
