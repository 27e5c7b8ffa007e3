from gloo import four, two

__all__ = ["four", "two"]
