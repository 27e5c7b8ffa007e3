"""Is a case store sound, and what do its images look like?"""
