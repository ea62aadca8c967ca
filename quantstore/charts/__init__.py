"""Frames in, Altair charts out. The only package that knows altair."""
