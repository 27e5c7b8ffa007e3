"""Predictors trained on labelled cases, one file each."""
