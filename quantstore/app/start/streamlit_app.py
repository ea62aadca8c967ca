"""The app as ``quantstore app`` starts it, from an installed package too.

In a folder of its own: until a first page was drawn, Streamlit takes a folder ``pages`` beside the
script for its pages, and a link that opens one of ours would fail.
"""

from quantstore.app.main import run
from quantstore.console.statement import get_ready

run()
# The SQL page may be next, and a page is drawn while the process of its query would only start.
get_ready()
