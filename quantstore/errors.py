"""The family of failures that quantstore can explain in one sentence.

Four places catch it for good: ``cli.main`` (prints, returns ``exit_code``), ``app.main.run`` (shows
the sentence on the page), ``process.serve`` (hands the failure to the process that asked) and
``process.queue`` (says it of one job, and goes on). Whoever works through several files also
catches it for one file, so that the rest goes on. Anything else is a bug and deserves its
traceback.
"""

from collections.abc import Iterable

# Characters of a message; the longest of our own, with names from real models, have about 400.
_LONGEST = 800


class QuantstoreError(Exception):
    """A failure worth one sentence to the person at the keyboard.

    The message says what is wrong; ``hint`` says what to do next.
    """

    exit_code = 1
    hint = ""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint

    @property
    def sentence(self) -> str:
        """What is wrong, then what to do, with control characters made visible.

        It quotes names from files, which may be of any length.
        """
        text = printable(str(self))
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 4 :]}"
        return f"{text}; {printable(self.hint)}" if self.hint else text


class ModelFileError(QuantstoreError):
    """A file that cannot be read as a model."""


class MissingWeightsError(ModelFileError):
    """The graph is readable, the tensors it points to are not."""


class NoLayersError(ModelFileError):
    """The model is valid, but holds nothing that quantstore measures."""


class StoreError(QuantstoreError):
    """The store cannot be used at all."""

    exit_code = 3


class MissingStoreError(StoreError):
    """There is no store at this path yet."""

    hint = "create one with: quantstore ingest MODEL.onnx (or: quantstore demo)"


class LockedStoreError(StoreError):
    """Another process holds the store for longer than we are willing to wait."""

    hint = "close that program, or try again in a moment"


class NewerStoreError(StoreError):
    """The store was written by a later release."""

    hint = "upgrade quantstore, or name another store with --db"


class OlderStoreError(StoreError):
    """The store was written by an earlier release; whoever writes to it brings it up to date."""

    hint = "update it, keeping a copy, with: quantstore migrate"


class DamagedStoreError(StoreError):
    """The file is no DuckDB database, or not one of ours, or broken."""

    hint = "restore it from a backup, or name another store with --db and ingest again"


class UnknownModelError(QuantstoreError):
    """The store holds no model of this name."""

    exit_code = 2
    hint = "list the stored models with: quantstore models"


class UnknownRunError(QuantstoreError):
    """The store holds no run of this key."""

    exit_code = 2
    hint = 'list what it holds with: quantstore sql "from simulations"'


class UnknownSchemeError(QuantstoreError, ValueError):
    """There is no scheme of this name; Python knows such a mistake as a ValueError."""

    exit_code = 2


class UnknownTargetError(QuantstoreError, ValueError):
    """There is no target of this name; Python knows such a mistake as a ValueError."""

    exit_code = 2


class RefusedImportError(QuantstoreError):
    """A store or an export of somebody else that ours does not take over; nothing was changed."""

    hint = "ask for a new export of that store; nothing was imported"


class UnknownLayerError(QuantstoreError):
    """The model has no layer of this name, or several."""

    exit_code = 2
    hint = "list them with: quantstore layers MODEL"


class LimitsError(QuantstoreError):
    """A limit for ``quantstore check`` that is none: an unknown key, or a value of another kind."""

    exit_code = 2
    hint = "correct the limit; see: quantstore check --help"


class LabelError(QuantstoreError):
    """A name, tag or note that a model cannot have."""

    exit_code = 2


class RejectedQueryError(QuantstoreError):
    """A SQL statement that DuckDB or our rules refused.

    ``detail`` shows the place: the line of the statement and, below, a mark under the spot. Empty
    where nobody knows it. For a fixed-width font.
    """

    def __init__(self, message: str, hint: str | None = None, detail: str = "") -> None:
        super().__init__(message, hint)
        self.detail = detail


class InputsError(QuantstoreError):
    """What a model shall be run on is missing, unreadable, or does not fit it."""


class CancelledError(QuantstoreError):
    """Somebody stopped the work; nothing was stored."""


class MissingRuntimeError(QuantstoreError):
    """onnxruntime, which runs models, is not installed."""

    hint = "install it with: pip install 'onnxruntime>=1.20,<2'"


class RunError(QuantstoreError):
    """A model that onnxruntime does not run, or not on these inputs."""


def printable(text: str) -> str:
    """The text on one line: control and format characters become escapes such as ``\\n``.

    Names come from files that anybody can write; a terminal must not obey what they contain.
    """
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in text
    )


def hint_for(name: str, names: Iterable[str], hint: str) -> str:
    """What to do about a name that does not exist: the one that was perhaps meant, then the hint.

    Args:
        names: those that exist; where none is similar, the hint stands alone. Case does not count.
    """
    import difflib

    by_folded = {candidate.casefold(): candidate for candidate in names}
    close = difflib.get_close_matches(name.casefold(), by_folded, 1) or sorted(
        # What somebody abbreviated is not similar enough.
        (folded for folded in by_folded if name and name.casefold() in folded),
        key=len,
    )
    return f"did you mean {by_folded[close[0]]}? {hint}".rstrip() if close else hint


def unwritable(path: object, error: OSError) -> QuantstoreError:
    """The failure to write a file, as a sentence."""
    return QuantstoreError(
        f"{path}: cannot be written: {error.strerror or error}",
        "name a file in a folder that exists and that you may write to",
    )
