"""A TensorFlow Lite file in, what it computes out: the only module that knows LiteRT.

Delegates are left out, so that every tensor can be looked at, and one thread works, so that the
same file gives the same figures.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from quantstore.errors import RunError
from quantstore.records import LITERT, Array, Floats
from quantstore.run.inputs import ModelInput

NOT_INSTALLED = "LiteRT, which runs TensorFlow Lite files, is not installed"
INSTALL = "pip install 'quantstore[litert]'"
_PACKAGE = "ai-edge-litert"


def version() -> str:
    """What runs, as the store has it."""
    return f"{LITERT} {metadata.version(_PACKAGE)}"


@dataclass(frozen=True, slots=True)
class LiteTensorGrid:
    """The grid of a tensor of codes: ``value = scale * (code - zero_point)``."""

    scale: float
    zero_point: int
    dtype: np.dtype[Any]

    @property
    def lowest(self) -> int:
        """The least code, counted from the zero point."""
        return int(np.iinfo(self.dtype).min) - self.zero_point

    @property
    def highest(self) -> int:
        """The largest code, counted from the zero point."""
        return int(np.iinfo(self.dtype).max) - self.zero_point

    def floats(self, codes: Array) -> Floats:
        """What codes stand for."""
        shifted = codes.astype(np.float32) - np.float32(self.zero_point)
        return np.asarray(shifted * np.float32(self.scale), np.float32)

    def codes(self, values: Array) -> Array:
        """The nearest codes, at the ends of the grid where it ends before."""
        rounded = np.clip(np.rint(values / self.scale), self.lowest, self.highest)
        return np.asarray(rounded + self.zero_point).astype(self.dtype)


class LiteSession:
    """A file that is ready to run, with every tensor at hand afterwards.

    ``has_reference_kernels``: the kernels that define what an operator computes, instead of those
    that are fast on this computer.
    """

    def __init__(self, path: Path, *, has_reference_kernels: bool = False) -> None:
        """Read the file and set aside its memory.

        Raises:
            RunError: LiteRT is not installed, or refuses the file.
        """
        library = _library()
        resolvers = library.OpResolverType
        try:
            self._interpreter: Any = library.Interpreter(
                model_path=str(path),
                num_threads=1,
                experimental_op_resolver_type=(
                    resolvers.BUILTIN_REF
                    if has_reference_kernels
                    else resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                ),
                experimental_preserve_all_tensors=True,
            )
            self._interpreter.allocate_tensors()
            self._inputs: list[dict[str, Any]] = self._interpreter.get_input_details()
            self._outputs: list[dict[str, Any]] = self._interpreter.get_output_details()
            details = self._interpreter.get_tensor_details()
        except (RuntimeError, ValueError) as error:
            raise _refusal(path, error) from error
        self._path = path
        # A name may repeat: then nobody knows which tensor is meant.
        names = [detail["name"] for detail in details]
        self._index_of = {
            detail["name"]: detail["index"]
            for detail in details
            if names.count(detail["name"]) == 1
        }
        grids = ((detail["index"], _grid_of(detail)) for detail in details)
        self._grid_at = {index: grid for index, grid in grids if grid is not None}

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """What the file asks for, an open batch as 1."""
        return tuple(
            ModelInput(detail["name"], tuple(map(int, detail["shape"])), np.dtype(detail["dtype"]))
            for detail in self._inputs
        )

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(detail["name"] for detail in self._outputs)

    def grid_of(self, name: str) -> LiteTensorGrid | None:
        """The grid of a tensor; None of one that holds no codes, or that several share the name."""
        return self._grid_at.get(self._index_of.get(name, -1))

    def has(self, name: str) -> bool:
        """Whether a tensor of this name can be looked at."""
        return name in self._index_of

    def run(self, feed: Mapping[str, Array]) -> None:
        """Run the file on one sample, given in floats; its tensors can be looked at then.

        Raises:
            RunError: LiteRT stops, or the sample does not fit.
        """
        try:
            for detail in self._inputs:
                values = feed[detail["name"]]
                grid = self._grid_at.get(detail["index"])
                is_codes = grid is not None and values.dtype.kind == "f"
                array = grid.codes(values) if is_codes and grid is not None else values
                self._interpreter.set_tensor(detail["index"], array)
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise _refusal(self._path, error) from error

    def tensor(self, name: str) -> Array:
        """What a tensor held in the last run, codes as what they stand for.

        Raises:
            RunError: it holds nothing.
        """
        index = self._index_of[name]
        try:
            array: Array = self._interpreter.get_tensor(index)
        except (RuntimeError, ValueError) as error:
            raise _refusal(self._path, error) from error
        grid = self._grid_at.get(index)
        return array if grid is None else grid.floats(array)


def _grid_of(detail: Mapping[str, Any]) -> LiteTensorGrid | None:
    scales = detail["quantization_parameters"]["scales"]
    zero_points = detail["quantization_parameters"]["zero_points"]
    dtype = np.dtype(detail["dtype"])
    if len(scales) != 1 or dtype not in (np.int8, np.uint8, np.int16) or not scales[0] > 0:
        return None
    return LiteTensorGrid(float(scales[0]), int(zero_points[0]) if len(zero_points) else 0, dtype)


def _library() -> ModuleType:
    try:
        return importlib.import_module("ai_edge_litert.interpreter")
    except ModuleNotFoundError as error:
        raise RunError(NOT_INSTALLED, INSTALL) from error


def _refusal(path: Path, error: Exception) -> RunError:
    first = (str(error).strip().splitlines() or ["no reason given"])[0]
    return RunError(
        f"LiteRT does not run {path.name}: {first[:200]}",
        "convert the model again, or update LiteRT",
    )
