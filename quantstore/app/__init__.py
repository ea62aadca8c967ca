"""The web app. The only package that draws with streamlit."""
