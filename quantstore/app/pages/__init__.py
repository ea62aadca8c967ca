"""The pages of the app: each picks, asks and draws.

Streamlit runs a page as a program; importing one, as tests do for its texts, draws nothing.
"""
