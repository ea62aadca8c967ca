"""What the store would know of a model, put together by hand for the sentences about it."""

from typing import Any

from quantstore.wording.verdicts import ModelFacts


def finding(
    verdict: str = "untested",
    mode: str | None = None,
    db: float | None = None,
    broken: int = 0,
    at_risk: int = 0,
    **more: Any,
) -> ModelFacts:
    """A model that was run for the whole target where ``mode`` is given, else judged by weights."""
    figures: dict[str, Any] = {
        "evidence": "probe" if mode else "weights",
        "is_measured": mode == "both",
        "layer_count": 123,
    }
    return ModelFacts(
        verdict=verdict,
        mode=mode or "weights",
        output_sqnr_db=db,
        layers_broken=broken,
        layers_at_risk=at_risk,
        **(figures | more),
    )


def many(broken: int = 0, at_risk: int = 0, total: int = 1, **of: Any) -> list[ModelFacts]:
    """So many models, those that are neither are fine."""
    verdicts = ["broken"] * broken + ["at risk"] * at_risk
    verdicts += ["fine"] * (total - len(verdicts))
    return [finding(verdict, **of) for verdict in verdicts]
