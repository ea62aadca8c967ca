"""Figures in, sentences out: what the app, the command line and the report all say."""
