"""Recurrent networks as they are used: what comes out goes back in, step after step."""

from collections.abc import Callable, Mapping, Sequence

from quantstore.records import Array
from quantstore.run.runtime import Feeds

# A stream starts with states of zero, and starts again after so many steps.
STEPS = 24

Outputs = Mapping[str, Array]


def pairs(states: Mapping[str, Array], outputs: Outputs) -> dict[str, str]:
    """Which output each state comes from: one of the same shape, by its name, else in order.

    Args:
        states: the inputs that are states, in the order of the model.
        outputs: what the model gives, in its order.

    Returns:
        The output by the name of the input; states that no output fits are missing.
    """
    output_of: dict[str, str] = {}
    for wants_name in (True, False):
        for name, state in states.items():
            if name in output_of:
                continue
            for output, array in outputs.items():
                is_free = output not in output_of.values() and array.shape == state.shape
                if is_free and (not wants_name or _alike(name, output)):
                    output_of[name] = output
                    break
    return output_of


def streamed(
    samples: Sequence[Feeds],
    states: Sequence[str],
    run: Callable[[Feeds], Outputs],
    *,
    steps: int = STEPS,
) -> list[Feeds]:
    """The same samples as one stream after another, each with the states that those before left.

    Args:
        samples: with states of zero.
        states: names of the inputs that are states.
        run: the float model.

    Raises:
        RunError: the model cannot be run.
    """
    if not states or len(samples) < 2:
        return list(samples)
    fed: list[Feeds] = [samples[0]]
    outputs = run(samples[0])
    source = pairs({name: samples[0][name] for name in states}, outputs)
    if not source:
        return list(samples)
    for index, sample in enumerate(samples[1:], 1):
        if index % steps == 0:
            fed.append(sample)
        else:
            carried = {
                name: outputs[output].astype(sample[name].dtype) for name, output in source.items()
            }
            fed.append({**sample, **carried})
        if index + 1 < len(samples):
            outputs = run(fed[-1])
    return fed


def _alike(state: str, output: str) -> bool:
    """Whether an output bears the name of a state: ``h`` and ``hn``, ``state`` and ``stateN``."""
    return _stem(state) == _stem(output)


def _stem(name: str) -> str:
    """A name without what tells inputs from outputs."""
    stem = name.lower().rsplit("/", 1)[-1]
    for ending in ("_in", "_out", "in", "out", "_0", "_n", "0", "n", "_"):
        if len(stem) > len(ending):
            stem = stem.removesuffix(ending)
    return stem
