"""Public recordings: where each is had, how it is read and split, and what comes out beside published numbers.

No data are in the repository: every module takes the user's own copy.
"""
