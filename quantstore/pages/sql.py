import streamlit as st

from quantstore.pages import shared

st.title("x")
with shared.open_store() as con:
    st.write("hello")
