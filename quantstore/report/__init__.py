"""One HTML file to send: verdicts, charts, worst layers and method. It asks for nothing outside."""

from quantstore.report.document import file_name, html

__all__ = ["file_name", "html"]
