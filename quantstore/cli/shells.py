"""How the shells that complete lines ask, and how bash is answered."""

import os
import shlex

from click.shell_completion import BashComplete, CompletionItem, add_completion_class

NAMES = ("bash", "zsh", "fish")
# Where it is set, the process completes a line and does nothing else.
VARIABLE = "_QUANTSTORE_COMPLETE"


def prepare() -> None:
    """Before a line is completed, in a process that does nothing else."""
    add_completion_class(QuotingBash)


class QuotingBash(BashComplete):
    """Answers for bash, with names in quotes: they come from files that anybody can write.

    zsh and fish quote what they insert. Bash would run a model called ``$(command)``.
    """

    def format_completion(self, item: CompletionItem) -> str:
        """A line of the answer; empty for a name that cannot follow the quote that is open."""
        if item.type != "plain":
            return super().format_completion(item)
        quoted = shlex.quote(item.value)
        is_impossible = quoted != item.value and self._has_open_quote()
        return "" if is_impossible else f"{item.type},{quoted}"

    def _has_open_quote(self) -> bool:
        # The script of click puts a line break between words.
        last_word = os.environ["COMP_WORDS"].split("\n")[-1]
        return last_word.startswith(("'", '"'))
