"""Reports for tests: written at a time of their own, and read as a browser would."""

import json
from datetime import UTC, datetime
from html.parser import HTMLParser

from quantstore import report, store
from quantstore.schemes import TARGETS

MADE = datetime(2026, 11, 23, 8, 5, tzinfo=UTC)


def write(path, models, target="int8_tensor", **more):
    with store.reading(path) as connection:
        return report.html(connection, models, TARGETS[target], made_at=MADE, **more)


class Reader(HTMLParser):
    """What a browser would find: tags with attributes, visible text, scripts by kind."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words, self.scripts, self.styles = [], [], [], []
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside = tag
        if tag == "script":
            self.scripts.append([dict(attributes), ""])

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1][1] += data
        elif self._inside == "style":
            self.styles.append(data)
        else:
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).replace("\u00a0", " ").split())

    def charts(self):
        return {
            attributes["data-chart"]: json.loads(body)
            for attributes, body in self.scripts
            if "data-chart" in attributes
        }
