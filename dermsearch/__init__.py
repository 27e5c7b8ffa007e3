"""dermsearch: which self-supervised curriculum is worth your GPU-weeks on skin-lesion images."""

__version__ = "0.1.0"
