"""What a download is called."""

import re


def file_name(*pieces: str) -> str:
    """A name for a download out of names from files: nothing in it but letters, digits and dots."""
    return "-".join(re.sub(r"[^\w.]+", "-", piece).strip("-.")[-60:] for piece in pieces)
