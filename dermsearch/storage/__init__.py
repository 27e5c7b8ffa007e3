"""Folders and stage stores on any file system; keys and leases."""
