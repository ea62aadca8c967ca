"""What pyproject.toml cannot say: README.md as a package index can show it.

An index shows the text alone. A link to a file of this repository leads nowhere there, and a
picture is broken. With ``QUANTSTORE_REPOSITORY_URL`` both become absolute; without it a picture
becomes its description, and a link its words (docs/contributing.md, "A release").
"""

import os
import re
from pathlib import Path

from setuptools import setup

URL_VARIABLE = "QUANTSTORE_REPOSITORY_URL"

# Fenced blocks, and code within a line: nothing in them is a link.
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_PICTURE = re.compile(r"!\[(?P<words>[^\]]*)\]\((?P<path>[^)\s]+)\)")
_LINK = re.compile(r"(?<!!)\[(?P<words>[^\]]+)\]\((?P<path>[^)\s]+)\)")
_ELSEWHERE = ("https://", "http://", "#", "mailto:")


def published(text: str, repository_url: str | None) -> str:
    """The README for an index; code stays as it is.

    Args:
        repository_url: as browsers open it, of a host that serves ``/raw/HEAD/PATH`` and
            ``/blob/HEAD/PATH``: GitHub, GitLab, Forgejo.
    """
    base = None if repository_url is None else repository_url.rstrip("/")
    codes: list[str] = []

    def put_aside(match: re.Match[str]) -> str:
        codes.append(match[0])
        # Characters that no README holds.
        return f"\0{len(codes) - 1}\0"

    without_code = _CODE.sub(put_aside, text)
    with_pictures = _PICTURE.sub(lambda match: _picture(match, base), without_code)
    with_links = _LINK.sub(lambda match: _link(match, base), with_pictures)
    return re.sub(r"\0(\d+)\0", lambda match: codes[int(match[1])], with_links)


def _picture(match: re.Match[str], base: str | None) -> str:
    if match["path"].startswith(_ELSEWHERE):
        return match[0]
    if base is None:
        return f"*{match['words']}*"
    return f"![{match['words']}]({base}/raw/HEAD/{match['path']})"


def _link(match: re.Match[str], base: str | None) -> str:
    if match["path"].startswith(_ELSEWHERE):
        return match[0]
    if base is None:
        return match["words"]
    return f"[{match['words']}]({base}/blob/HEAD/{match['path']})"


if __name__ == "__main__":
    readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    setup(
        long_description=published(readme, os.environ.get(URL_VARIABLE) or None),
        long_description_content_type="text/markdown",
    )
