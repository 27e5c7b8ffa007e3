"""What a study may propose."""
