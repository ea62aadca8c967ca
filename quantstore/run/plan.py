"""What is probed at ingest, in this order: full int8 first, for it is what a verdict rests on."""

from dataclasses import dataclass

from quantstore.schemes import SCHEMES, TARGETS, Scheme, Target


@dataclass(frozen=True, slots=True)
class Probed:
    """One figure: a target's, or where ``target`` is None weights alone in a scheme."""

    scheme: Scheme
    target: Target | None = None

    @property
    def mode(self) -> str:
        """What is rounded: weights, or both weights and activations."""
        return "weights" if self.target is None else self.target.mode

    @property
    def names(self) -> tuple[str, str | None]:
        """Scheme and target by their names."""
        return self.scheme.name, None if self.target is None else self.target.name

    @classmethod
    def named(cls, scheme: str, target: str | None) -> "Probed":
        """From :attr:`names`."""
        return cls(SCHEMES[scheme]) if target is None else cls.of(TARGETS[target])

    @classmethod
    def of(cls, target: Target) -> "Probed":
        """A target's own figure."""
        return cls(target.scheme, target)


# Schemes whose weights alone are worth a figure beside those of the targets.
_SCHEMES = ("int8_tensor_symmetric", "int8_tensor_asymmetric", "int4_channel_symmetric")
PLAN = (
    *(Probed.of(target) for target in TARGETS.values() if target.is_default),
    *(Probed(SCHEMES[name]) for name in _SCHEMES),
)
