"""How a command shows the stages of long work in a child process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from quantstore.cli.output import Talk
from quantstore.errors import QuantstoreError
from quantstore.wording.rescues import progress_label

if TYPE_CHECKING:
    from quantstore.run.choices import Progress, ReportProgress


@contextmanager
def showing_stages(file_name: str | None = None) -> "Iterator[ReportProgress]":
    """Show each stage with a bar of its own, messages above it; Ctrl-C ends it without a word.

    Args:
        file_name: what a failure is about; its sentence then begins with it.
    """
    with Talk() as talk:
        shown_stage, message_count = "", 0

        def report(progress: "Progress") -> None:
            nonlocal shown_stage, message_count
            if progress.stage != shown_stage:
                shown_stage = progress.stage
                talk.begin()
            for message in progress.messages[message_count:]:
                talk.say(message)
            message_count = len(progress.messages)
            label = progress_label(progress.stage, progress.budget_left_s)
            talk.progress(progress.done, progress.total, label)

        try:
            yield report
        except KeyboardInterrupt:
            raise click.Abort from None
        except QuantstoreError as error:
            if file_name is not None:
                error.args = (f"{file_name}: {error}",)
            raise
