"""Processes of our own: start, limit, ask, cancel and end them; nothing here knows a model.

``child`` is the side that asks, ``serve`` the side that answers, ``limits`` what a child may take;
``running`` is an answer that somebody waits for, ``queue`` several of them, one after another.
``pool`` spreads one piece of work over the cores. ``memory`` says how much there is, ``logs``
carries the log into children.
"""
