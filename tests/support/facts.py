"""What the store would know of a model, put together by hand for the sentences about it."""

from quantstore.wording.verdicts import ModelFacts


def finding(verdict="fine", mode=None, db=None, broken=0, at_risk=0, **more) -> ModelFacts:
    return ModelFacts(
        verdict=verdict,
        mode=mode,
        output_sqnr_db=db,
        layers_broken=broken,
        layers_at_risk=at_risk,
        layer_count=more.pop("layer_count", 123),
        **more,
    )


def many(breaking=0, at_risk=0, total=1, **of) -> list[ModelFacts]:
    verdicts = ["breaks"] * breaking + ["at risk"] * at_risk
    verdicts += ["fine"] * (total - len(verdicts))
    return [finding(verdict, **of) for verdict in verdicts]
