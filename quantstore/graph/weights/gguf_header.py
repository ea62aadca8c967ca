"""What stands before the weights of a GGUF file: a few facts, and where each tensor lies.

Read here, step by step and with limits: the package ``gguf`` maps the file and keeps every word of
a vocabulary as an array, which takes 8 s and half a gigabyte for one of 150,000 words.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from quantstore.errors import ModelFileError
from quantstore.graph.limits import MOST_NODES

DAMAGED = "a damaged GGUF file"
_AGAIN = "download or convert the model again"

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# Those of ggml; names of tensors have at most 64 bytes there, keys 65,535.
_MOST_DIMENSIONS = 4
_LONGEST_NAME = 1 << 16
# Pairs of a key and a value, and all members of lists together: a vocabulary has 300,000 words.
_MOST_PAIRS = 1 << 16
_MOST_MEMBERS = 1 << 24
_DEFAULT_ALIGNMENT = 32
# What a file of a model in several can say about itself.
_MOST_COUNT = (1 << 31) - 1

# The types of values, by their numbers.
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_TEXT, _LIST = 8, 9


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor: ``shape`` as numpy has it, ``type_number`` of ggml, ``offset`` in the file."""

    name: str
    shape: tuple[int, ...]
    type_number: int
    offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """``facts``: numbers and short texts, by their keys. ``entries``: in the order of the file."""

    facts: Mapping[str, int | float | str]
    entries: tuple[Entry, ...]

    @property
    def part_count(self) -> int:
        """Of how many files the model consists."""
        return max(1, self._count("split.count", 1))

    @property
    def part_number(self) -> int:
        """Which of them this is; they count from 1 here, and from 0 in the file."""
        return self._count("split.no", 0) + 1

    @property
    def total_count(self) -> int:
        """How many tensors all files have together."""
        return self._count("split.tensors.count", len(self.entries))

    def _count(self, key: str, otherwise: int) -> int:
        fact = self.facts.get(key, otherwise)
        return fact if isinstance(fact, int) and 0 <= fact <= _MOST_COUNT else otherwise


def read_header(stream: BinaryIO, size: int) -> Header:
    """Read what stands before the weights.

    Args:
        size: of the file, in bytes.

    Raises:
        ModelFileError: it is no such file, or claims what no such file has.
    """
    return _Reader(stream, size).header()


class _Reader:
    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size = stream, size
        self._members = 0

    def header(self) -> Header:
        if self._bytes(len(_MAGIC)) != _MAGIC:
            raise _damaged("it does not begin as one")
        version = self._number("<I")
        if version & 0xFFFF == 0:
            raise ModelFileError("a GGUF file for big-endian computers", "convert it for others")
        if version not in _VERSIONS:
            raise ModelFileError(
                f"GGUF version {version} is not read", "convert the model to version 3"
            )
        tensor_count, pair_count = self._number("<Q"), self._number("<Q")
        if tensor_count > MOST_NODES or pair_count > _MOST_PAIRS:
            raise _damaged(f"it claims {tensor_count:,} tensors and {pair_count:,} facts")
        facts: dict[str, int | float | str] = {}
        for _ in range(pair_count):
            key = self._text()
            fact = self._value(self._number("<I"))
            if fact is not None:
                facts[key] = fact
        entries = [self._entry() for _ in range(tensor_count)]
        if len({entry.name for entry in entries}) < len(entries):
            raise _damaged("two of its tensors have the same name")
        start = self._start(facts)
        return Header(
            facts,
            tuple(
                Entry(entry.name, entry.shape, entry.type_number, start + entry.offset)
                for entry in entries
            ),
        )

    def _start(self, facts: Mapping[str, int | float | str]) -> int:
        """Where the weights begin."""
        alignment = facts.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= self._size:
            raise _damaged(f"an alignment of {alignment}")
        return -(-self._stream.tell() // alignment) * alignment

    def _entry(self) -> Entry:
        name = self._text()
        rank = self._number("<I")
        if rank > _MOST_DIMENSIONS:
            raise _damaged(f"tensor {name[:80]!r} has {rank} dimensions")
        # The first is the one whose members lie side by side.
        dimensions = [self._number("<Q") for _ in range(rank)]
        return Entry(name, tuple(reversed(dimensions)), self._number("<I"), self._number("<Q"))

    def _value(self, value_type: int, *, is_member: bool = False) -> int | float | str | None:
        """A value, or None of one that is no number and no short text."""
        if value_type in _SCALARS:
            number = self._number(_SCALARS[value_type])
            return number if not isinstance(number, float) or math.isfinite(number) else None
        if value_type == _TEXT:
            length = self._number("<Q")
            if not is_member and length <= _LONGEST_NAME:
                return self._bytes(length).decode("utf-8", "backslashreplace")
            self._skip(length)
            return None
        if value_type != _LIST or is_member:
            raise _damaged(f"a fact of the unknown type {value_type}")
        member_type, count = self._number("<I"), self._number("<Q")
        self._members += count
        if self._members > _MOST_MEMBERS:
            raise _damaged(f"lists of more than {_MOST_MEMBERS:,} members")
        if member_type in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[member_type]))
            return None
        for _ in range(count):
            self._value(member_type, is_member=True)
        return None

    def _text(self) -> str:
        length = self._number("<Q")
        if length > _LONGEST_NAME:
            raise _damaged(f"a name of {length:,} bytes")
        return self._bytes(length).decode("utf-8", "backslashreplace")

    def _number(self, form: str) -> int:
        (number,) = struct.unpack(form, self._bytes(struct.calcsize(form)))
        return number  # type: ignore[no-any-return]

    def _bytes(self, count: int) -> bytes:
        content = self._stream.read(count)
        if len(content) < count:
            raise _damaged("it ends before its weights begin")
        return content

    def _skip(self, count: int) -> None:
        if count > self._size - self._stream.tell():
            raise _damaged("it ends before its weights begin")
        self._stream.seek(count, 1)


def _damaged(reason: str) -> ModelFileError:
    return ModelFileError(f"{DAMAGED}: {reason}", _AGAIN)
