"""One typed SQL statement: asked in a child process that reaches the store and nothing else.

``statement`` asks and limits, ``child`` answers, ``answer`` is what comes of it, ``examples`` are
statements to begin with. Nothing here draws.
"""
