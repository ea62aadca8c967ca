"""The app, for ``streamlit run app.py``."""

from quantstore.app import run

run()
