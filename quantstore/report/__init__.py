"""One HTML file to send: verdicts, charts, layers, drift, rescue. It asks for nothing outside."""

from quantstore.report.document import file_name, html

__all__ = ["file_name", "html"]
