"""What a reader says of a file that it does not read."""

import pytest

from quantstore.errors import ModelFileError
from quantstore.pipeline.measure_file import measure_file


def refusal(path):
    """The one sentence that refuses a file."""
    with pytest.raises(ModelFileError) as failure:
        measure_file(path)
    sentence = failure.value.sentence
    assert sentence.isprintable()
    assert len(sentence) < 600
    return sentence
