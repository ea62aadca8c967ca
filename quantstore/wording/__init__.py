"""Figures in, sentences out: what the app, the command line and the report all say.

``units`` writes figures, ``text`` names; ``nodes``, ``verdicts``, ``causes``, ``remedies`` and
``headlines`` make sentences, ``tables`` and ``frames`` turn rows into text, ``explanations``,
``notes`` and ``worked_example`` explain. It never asks the store and never draws.
"""
