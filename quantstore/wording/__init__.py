"""Figures in, sentences out: what the app, the command line and the report all say.

``units`` writes figures, ``text`` names; ``nodes``, ``verdicts``, ``causes``, ``remedies``,
``headlines`` and ``stories`` make sentences. ``columns`` is what a table of the app and of the
report is made of; ``layers``, ``runs``, ``drift``, ``sensitivity``, ``targets`` and
``rescue_tables`` have such columns, with headings and captions. ``tables`` writes frames for other
programs, ``frames`` reads them; ``explanations``, ``notes`` and ``worked_example`` explain. It
never asks the store and never draws.
"""
