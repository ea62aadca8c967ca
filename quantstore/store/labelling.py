"""What people write on a model to find it again: its name, tags and a note."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from quantstore.errors import LabelError
from quantstore.store.connection import Connection
from quantstore.store.models import find_model

# Characters. Long enough for any file's stem; a label that is longer is a mistake.
LONGEST_NAME = 200
LONGEST_TAG = 50
LONGEST_NOTE = 10_000
# Of one model: more would not find it again either.
MOST_TAGS = 50

NEEDS_A_NAME = "a model needs a name"
HOLDS_NO_CONTROL_CHARACTERS = "must not contain control characters or line breaks"


def name_is_taken(name: str) -> str:
    """Why a model cannot be called like this."""
    return f"another model is already named {name!r}"


def is_too_long(subject: str, most_characters: int, characters: int) -> str:
    """Why a name or a tag cannot be so long."""
    return f"{subject} can have at most {most_characters} characters, not {characters}"


@dataclass(frozen=True, slots=True)
class Labels:
    """The tags (sorted) and the note of one model, or of several that become one."""

    tags: tuple[str, ...] = ()
    note: str = ""

    def joined(self, other: "Labels") -> "Labels":
        """What both say, each thing once."""
        notes = dict.fromkeys(note for note in (self.note, other.note) if note)
        return Labels(tuple(sorted({*self.tags, *other.tags})), "\n\n".join(notes))


def labels(connection: Connection, model: str) -> Labels:
    """What somebody wrote on a model; nothing where the store does not hold it."""
    rows = connection.rows("select tags, note from models where model = ?", [model])
    return Labels(tuple(rows[0][0]), rows[0][1]) if rows else Labels()


def rename_model(connection: Connection, model: str, name: str) -> str:
    """Give a model another name; returns it as it is stored, without space around it.

    Raises:
        UnknownModelError: where the store does not hold the model.
        LabelError: the name is empty, too long, taken, or holds control characters.
    """
    model_id = find_model(connection, model)
    name = _one_line(name, "a name", LONGEST_NAME)
    if not name:
        raise LabelError(NEEDS_A_NAME, "enter at least one character")
    holder = connection.value("select model_id from models where model = ?", [name])
    if holder not in (None, model_id):
        raise LabelError(name_is_taken(name), "choose another name")
    connection.rows("update models set model = ? where model_id = ?", [name, model_id])
    return name


def set_tags(connection: Connection, model: str, tags: Iterable[str]) -> tuple[str, ...]:
    """Replace the tags of a model; returns them as they are stored, sorted, each once.

    Raises:
        UnknownModelError: where the store does not hold the model.
        LabelError: a tag is too long, holds a comma or control characters, or there are too many.
    """
    model_id = find_model(connection, model)
    cleaned_tags = tuple(sorted({tag for tag in map(_tag, tags) if tag}))
    if len(cleaned_tags) > MOST_TAGS:
        raise LabelError(
            f"a model can have at most {MOST_TAGS} tags, not {len(cleaned_tags)}", "use fewer"
        )
    connection.rows("update models set tags = ? where model_id = ?", [list(cleaned_tags), model_id])
    return cleaned_tags


def cleaned_note(note: str) -> str:
    """A note as it is kept: without space at its edges, tabs and new lines of other systems.

    Raises:
        LabelError: the note is too long, or holds control characters other than new lines.
    """
    lines = note.replace("\r\n", "\n").replace("\r", "\n").expandtabs(4).strip().split("\n")
    for line in lines:
        _require_text(line, "a note")
    note = "\n".join(line.rstrip() for line in lines)
    if len(note) > LONGEST_NOTE:
        raise LabelError(
            f"a note can have at most {LONGEST_NOTE:,} characters, not {len(note):,}", "shorten it"
        )
    return note


def set_note(connection: Connection, model: str, note: str) -> None:
    """Replace the note of a model; an empty one removes it.

    Raises:
        UnknownModelError: where the store does not hold the model.
        LabelError: the note is too long, or holds control characters other than new lines.
    """
    model_id = find_model(connection, model)
    note = cleaned_note(note)
    connection.rows("update models set note = ? where model_id = ?", [note, model_id])


def _tag(text: str) -> str:
    tag = _one_line(text, "a tag", LONGEST_TAG)
    # Lists of tags are written with commas between them.
    if "," in tag:
        raise LabelError(f"the tag {tag!r} contains a comma", "give each tag separately")
    return tag


def _one_line(text: str, subject: str, longest: int) -> str:
    _require_text(text.strip(), subject)
    line = text.strip()
    if len(line) > longest:
        raise LabelError(is_too_long(subject, longest, len(line)), "shorten it")
    return line


# Control characters, halves of characters, and what breaks a line.
_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")


def _require_text(text: str, subject: str) -> None:
    if any(unicodedata.category(character) in _NO_TEXT for character in text):
        raise LabelError(f"{subject} {HOLDS_NO_CONTROL_CHARACTERS}: {text!r}", "remove it")
