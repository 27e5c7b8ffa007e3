"""Pretext tasks, one file each."""
