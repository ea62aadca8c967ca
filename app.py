"""The app, for ``streamlit run app.py``."""

from quantstore.app.main import run

run()
