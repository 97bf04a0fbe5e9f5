"""Public recordings: how each is trained and scored, and what comes out beside published numbers.

No data are in the repository: every module of ``recordings`` takes the user's own copy.
"""
