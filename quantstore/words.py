"""Figures and verdicts in the words of a person: no file, no table, no widget."""

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from quantstore.errors import printable
from quantstore.schemes import BLOCK_SIZE, Scheme

NO_BREAK_SPACE = "\u00a0"
MINUS = "\u2212"

# Of a model that was measured with --no-fold.
UNFOLDED = "weights as stored, batch normalization not folded"

# The field's measure everywhere in the app, said so that nobody has to know percentiles.
NINE_IN_TEN = "SQNR that nine in ten channels reach"

# What fine means for the bits needed, in dB, as the store explains them.
FINE_DB = 30.0
# The limits of the bands as they come, where no store says otherwise.
BAND_LIMITS_DB = (10, 20, 30)
# The most bits that the search for the bits needed tries.
MOST_BITS = 16

# The outputs of an int8 network never come this close; integers that come back as they were do.
OWN_GRID_DB = 60.0

# A channel this much narrower than the largest weight gets at most 4 of 127 codes per side.
NARROW_CHANNEL_SHARE = 1 / 32
# From two bits of spread on, a typical channel has lost a quarter of the grid's precision.
TELLING_SPREAD_BITS = 2.0
# From here on even the whole tensor stays below 30 dB: 58.9 - 20 log10(28) = 30.
HEAVY_TAIL_SPAN_OVER_RMS = 28.0
# Less than this share of the grid lies on the emptier side of zero.
ONE_SIDED_SHARE = 0.05


def db(value: float | None, *, signed: bool = False) -> str:
    """``12.2 dB``; an exact layer has an infinite ratio and is called ``exact``."""
    if value is None or not math.isfinite(value):
        return "exact"
    text = f"{value:+.1f}" if signed else f"{tenths(value):.1f}"
    return with_minus(text).replace("+0.0", "0.0").replace(f"{MINUS}0.0", "0.0") + _unit("dB")


def tenths(value: float) -> float:
    """A figure to one decimal, and never a whole number that it does not reach.

    Limits are whole numbers: a layer to watch with 29.96 dB must not read 30.0, which is fine.
    """
    rounded = round(value, 1) + 0.0  # no minus zero
    is_short = 0 < value < rounded and rounded.is_integer()
    return rounded - 0.1 if is_short else rounded


def count(value: int) -> str:
    """``8,991``."""
    return f"{value:,}"


def counted(value: int, noun: str) -> str:
    """``1 layer``, ``24 layers``."""
    return f"{value:,}{NO_BREAK_SPACE}{noun}{'' if value == 1 else 's'}"


def weights(value: int) -> str:
    """``977 k``, ``2.29 M``: three significant digits."""
    if value < 1000:
        return str(value)
    thousands = value / 1000
    for unit in ("k", "M"):
        if thousands < 999.5:
            return f"{thousands:.3g}{_unit(unit)}"
        thousands /= 1000
    return f"{thousands:.3g}{_unit('G')}"


def file_size(value: int) -> str:
    """``4.0 MB``, ``102 MB``: decimal units, as disks are sold."""
    if value < 1000:
        return f"{value}{_unit('B')}"
    scaled, units = value / 1000, ["kB", "MB", "GB"]
    while scaled >= 999.5 and len(units) > 1:
        scaled, units = scaled / 1000, units[1:]
    return f"{scaled:.{0 if scaled >= 99.95 else 1}f}{_unit(units[0])}"


def share(value: float, *, digits: int = 0) -> str:
    """``77 %``; a share that is not zero never reads ``0 %``."""
    percent = 100 * value
    smallest = 10.0**-digits
    if 0 < percent < smallest / 2:
        return f"<{NO_BREAK_SPACE}{smallest:g}{_unit('%')}"
    return f"{percent:.{digits}f}{_unit('%')}"


def weight(value: float | None) -> str:
    """A range or a weight: ``211.8`` from 10 on, else three significant digits."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return with_minus(f"{value:.2e}")
    if abs(value) >= 9.995:
        return with_minus(f"{value:,.1f}")
    return with_minus(f"{value:#.3g}")


def times(ratio: float, sign: str = "×") -> str:
    """``1.5×``, ``67×``."""
    return f"{ratio:.1f}{sign}" if ratio < 9.95 else f"{count(round(ratio))}{sign}"


def bits(value: float | None) -> str:
    """``1.5 bits``."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.1f}{_unit('bits')}"


def seconds(value: float) -> str:
    """``0.9 s``, ``14 ms``."""
    if value < 0.0995:
        return f"{1000 * value:.0f}{_unit('ms')}"
    return f"{value:.1f}{_unit('s')}"


def shape(dimensions: Iterable[int]) -> str:
    """``64 × 1 × 3 × 3``."""
    return " × ".join(str(dimension) for dimension in dimensions)


def operator(op_type: str, is_depthwise: bool) -> str:
    """``depthwise Conv``."""
    return f"depthwise {op_type}" if is_depthwise else op_type


# What a setting is called where one number says it; of several axes, where they agree.
_SETTINGS = {"strides": "stride", "pads": "padding", "dilations": "dilation", "axis": "axis"}
_PER_AXIS = ("strides", "pads", "dilations")
_FLAGS = {"transA": "A transposed", "transB": "B transposed"}
# The shape of the weights and the line beside it say these already.
_SAID_ELSEWHERE = ("kernel_shape", "N", "K")


def node_settings(attributes: str | None, group_count: int) -> list[str]:
    """``stride 2``, ``padding 1``, ``32 groups``: a node's attributes in words, the usual first.

    Args:
        attributes: as the column ``layers.attributes`` holds them, None where it holds nothing.
        group_count: of the layer; attributes of convolutions repeat it.
    """
    values: dict[str, object] = json.loads(attributes) if attributes else {}
    ordered = [name for name in _SETTINGS if name in values]
    ordered += [name for name in values if name not in ordered]
    settings = [_setting(name, values[name]) for name in ordered if name != "group"]
    if group_count > 1:
        settings.insert(
            len([name for name in ordered if name in _SETTINGS]), f"{group_count} groups"
        )
    return [setting for setting in settings if setting]


def _setting(name: str, value: object) -> str:
    if name in _SAID_ELSEWHERE or (name, value) == ("auto_pad", "NOTSET"):
        return ""
    if name in _FLAGS and value in (0, 1):
        return _FLAGS[name] if value else ""
    if name in _PER_AXIS and isinstance(value, list) and value and len({*map(str, value)}) == 1:
        value = value[0]
    values = value if isinstance(value, list) else [value]
    texts = [entry if isinstance(entry, str) else with_minus(str(entry)) for entry in values]
    return f"{_SETTINGS.get(name, name.replace('_', ' '))} {', '.join(texts)}"


def with_minus(text: str) -> str:
    """The text with true minus signs."""
    return text.replace("-", MINUS)


def expected_db(span_over_rms: float) -> float:
    """SQNR of a uniform 8-bit grid that covers ``span_over_rms`` root mean squares, in dB.

    Uniform rounding noise has the variance step^2 / 12: 20 log10(255 sqrt(12)) = 58.9 dB less
    20 log10 of the span (W. R. Bennett, Spectra of Quantized Signals, 1948).
    """
    return 58.9 - 20 * math.log10(span_over_rms)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known of one model under one scheme: a row of the view ``verdicts``."""

    verdict: str  # breaks, at risk, watch or fine
    mode: str | None  # what the probe quantized; None where the verdict rests on the weights alone
    output_sqnr_db: float | None
    layers_broken: int
    layers_at_risk: int
    layer_count: int
    is_already_quantized: bool = False
    are_layers_exact: bool = False  # nothing but float rounding is lost in any of them
    probe_failure: str | None = None
    next_limit_db: float | None = None  # of the bands, the lowest that the outputs do not reach

    @property
    def is_probed(self) -> bool:
        return self.mode is not None and self.output_sqnr_db is not None

    @property
    def is_on_its_own_grid(self) -> bool:
        """Whether the file holds integers of this very scheme, so that there is nothing to lose."""
        if not self.is_already_quantized:
            return False
        if self.output_sqnr_db is None:
            return self.are_layers_exact
        return self.output_sqnr_db > OWN_GRID_DB


@dataclass(frozen=True, slots=True)
class VerdictCell:
    """What a cell of the verdict matrix says: ``band`` colours it, ``evidence`` says why."""

    band: str
    text: str
    addition: str = ""
    evidence: str = ""
    where: str = ""  # what the figure is of, in front of the evidence


MODES = {
    "both": "weights and activations",
    "weights": "weights only",
    "activations": "activations only",
}
_MODES_IN_A_CELL = MODES | {"both": "full int8"}


def verdict(facts: ModelFacts) -> VerdictCell:
    """The verdict on one model under one scheme, with what it rests on.

    The probe decides where there is one. Weights alone never prove that a model survives, and
    layers to watch never change their verdict.
    """
    if facts.is_on_its_own_grid:
        return VerdictCell("fine", "on this grid already", "", "the first loss is unknown")
    if not facts.is_probed:
        by_weights = weights_verdict(facts.layers_broken, facts.layers_at_risk)
        if facts.probe_failure:
            evidence = "weights alone; the probe failed"
        elif by_weights.band == "fine":
            evidence = "activations not measured"
        else:
            evidence = "weights alone, not run"
        return VerdictCell(by_weights.band, by_weights.text, by_weights.addition, evidence)
    mode = facts.mode or ""
    survives = {"weights": "weights survive", "activations": "activations survive"}
    outcome = survives.get(mode, "survives") if facts.verdict == "fine" else facts.verdict
    band = "broken" if facts.verdict == "breaks" else facts.verdict
    text = f"{outcome}: {_outputs(facts)}"
    evidence = _MODES_IN_A_CELL[mode]
    if facts.layers_broken:
        evidence += f"; {counted(facts.layers_broken, 'layer')} broken"
    return VerdictCell(band, text, "", evidence, "at the outputs, ")


def verdict_sentence(facts: ModelFacts) -> str:
    """The verdict on one line: ``breaks: 7 dB at the outputs, full int8; 24 layers broken``."""
    cell = verdict(facts)
    text = " ".join(filter(None, (cell.text, cell.addition)))
    evidence = f" {cell.where}{cell.evidence}" if cell.where else f", {cell.evidence}"
    return f"{text}{evidence}".replace(NO_BREAK_SPACE, " ")


def weights_verdict(layers_broken: int, layers_at_risk: int) -> VerdictCell:
    """The verdict from the weights alone: they can prove that a model breaks, nothing else."""
    if layers_broken:
        addition = f"+{NO_BREAK_SPACE}{layers_at_risk} at risk" if layers_at_risk else ""
        return VerdictCell("broken", f"breaks: {counted(layers_broken, 'layer')}", addition)
    if layers_at_risk:
        return VerdictCell("at risk", f"at risk: {counted(layers_at_risk, 'layer')}")
    return VerdictCell("fine", "no weight-side blocker")


def about_db(value: float | None, next_limit_db: float | None = None) -> str:
    """``7 dB``: another seed moves the probe by more than a decimal.

    Right below a limit of the bands a decimal stays: 9.7 dB must not read 10.

    Args:
        next_limit_db: the lowest limit above the value, None where there is none.
    """
    if value is None or not math.isfinite(value):
        return "exact"
    whole = round(value)
    if next_limit_db is not None and whole >= next_limit_db > value:
        return with_minus(f"{math.floor(10 * value) / 10:.1f}") + _unit("dB")
    return with_minus(str(whole)) + _unit("dB")


def _outputs(facts: ModelFacts) -> str:
    return about_db(facts.output_sqnr_db, facts.next_limit_db)


def models_headline(
    models: Sequence[ModelFacts], per_channel: Sequence[ModelFacts], scheme: Scheme
) -> str:
    """The answer of the Compare page: ``3 of 10 models break under ...; none does per channel``.

    Args:
        models: one per model, under the scheme.
        per_channel: the same models under the per-channel scheme of the same symmetry.
    """
    total = len(models)
    verdicts = [model.verdict for model in models]
    breaking, at_risk = verdicts.count("breaks"), verdicts.count("at risk")
    subject = "The model" if total == 1 else f"{breaking or at_risk:,} of {total:,} models"
    if breaking:
        verb = "breaks" if breaking == 1 else "break"
        sentence = f"{subject} {verb} under {scheme.title}"
    elif at_risk:
        is_one = at_risk == 1
        verb = "has layers" if is_one else "have layers"
        if any(model.is_probed for model in models if model.verdict == "at risk"):
            verb = "is" if is_one else "are"
        sentence = f"{subject} {verb} at risk under {scheme.title}"
    else:
        return _none_breaks(models, scheme)
    if scheme.is_per_channel or not breaking:
        return sentence
    still_breaking = sum(model.verdict == "breaks" for model in per_channel)
    if still_breaking == 0:
        per_channel_clause = "per channel it does not" if total == 1 else "none does per channel"
    elif total == 1:
        per_channel_clause = "per channel it still does"
    else:
        per_channel_clause = (
            f"{still_breaking:,} still {'does' if still_breaking == 1 else 'do'} per channel"
        )
    return f"{sentence}; {per_channel_clause}"


def _none_breaks(models: Sequence[ModelFacts], scheme: Scheme) -> str:
    total = len(models)
    judged = [model for model in models if not model.is_on_its_own_grid]
    stored = total - len(judged)
    if not judged:
        verb = "is" if total == 1 else "are"
        return (
            f"{_capital(_models(total, total))} {verb} stored on the grid of {scheme.title}"
            " already; what that cost is unknown"
        )
    modes = {model.mode if model.is_probed else None for model in judged}
    # Without a probe, layers to watch change nothing.
    watch = sum(model.verdict == "watch" and model.is_probed for model in judged)
    surviving = len(judged) - watch
    whom = _models(surviving or watch, total)
    if modes == {None}:
        sentence = f"No blocker found in the weights of {whom} under {scheme.title}"
    elif None in modes:
        none = "Neither model" if total == 2 else f"None of {total:,} models"
        sentence = f"{none} breaks under {scheme.title}; not all could be probed"
    elif not surviving:
        sentence = f"The loss of {whom} is visible under {scheme.title} in the noise probe"
    elif modes == {"both"}:
        verb = "survives" if surviving == 1 else "survive"
        sentence = f"{_capital(whom)} {verb} {scheme.title} in the noise probe"
    else:
        sentence = f"The weights of {whom} survive {scheme.title} in the noise probe"
    if None not in modes and modes != {"both"}:
        sentence += f"; activations were not {'always ' if 'both' in modes else ''}measured"
    if watch and (surviving or None in modes):
        sentence += f"; {watch:,} to watch"
    if stored:
        sentence += f"; {stored:,} {'is' if stored == 1 else 'are'} stored on this grid already"
    return sentence


def _models(named_count: int, total: int) -> str:
    """``the model``, ``both models``, ``all 4 models``, ``3 of 4 models``."""
    if named_count < total:
        return f"{named_count:,} of {total:,} models"
    return {1: "the model", 2: "both models"}.get(total, f"all {total:,} models")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def model_headline(facts: ModelFacts, per_channel: ModelFacts, scheme: Scheme) -> str:
    """The Model page's answer, from the probe where there is one.

    ``In the noise probe it breaks under ...: 7 dB at the outputs, 19 dB per channel``, else
    ``24 of 123 layers break under ...; per channel, none does``.
    """
    if facts.is_on_its_own_grid:
        return f"Stored on the grid of {scheme.title} already; what that cost is unknown"
    if not facts.is_probed:
        return _headline_from_weights(facts, per_channel.layers_broken, scheme)
    outcome = {
        "breaks": "it breaks under",
        "at risk": "it is at risk under",
        "watch": "its loss is visible under",
        "fine": {
            "weights": "its weights survive",
            "activations": "its activations survive",
        }.get(facts.mode or "", "it survives"),
    }[facts.verdict]
    sentence = f"In the noise probe {outcome} {scheme.title}: {_outputs(facts)} at the outputs"
    if not scheme.is_per_channel and per_channel.is_probed and per_channel.mode == facts.mode:
        sentence += f", {_outputs(per_channel)} per channel"
    if facts.mode == "weights":
        return f"{sentence}; activations not measured"
    return sentence


def moment(when: datetime) -> str:
    """``28 Nov 2026, 11:25``."""
    return f"{when.day} {when:%b %Y, %H:%M}"


def visible_lines(text: str) -> str:
    """A text of several lines, with every other control character made visible."""
    return "\n".join(map(printable, text.split("\n")))


def shelf_headline(
    models: int, layers: int, disk_bytes: int, *, changed: int, perhaps: int, outdated: int
) -> str:
    """The Models page's answer: ``18 models, 653 layers, 36.7 MB on disk; all in order``.

    Args:
        changed: models whose file holds something else than was measured.
        perhaps: models whose file may do so; nobody has looked.
        outdated: models that an older release measured in another way.
    """
    held = (
        f"{counted(models, 'model')}, {counted(layers, 'layer')}, {file_size(disk_bytes)} on disk"
    )
    concerns = []
    if changed:
        concerns.append(
            f"{changed:,} {'file has' if changed == 1 else 'files have'} changed since"
            f" {'it was' if changed == 1 else 'they were'} measured"
        )
    if perhaps and changed:
        concerns.append(f"{counted(perhaps, 'other')} may have")
    elif perhaps:
        concerns.append(
            f"{counted(perhaps, 'file')} may have changed since"
            f" {'it was' if perhaps == 1 else 'they were'} measured"
        )
    if outdated:
        concerns.append(
            f"{counted(outdated, 'model')} {'was' if outdated == 1 else 'were'} measured by an"
            " older release"
        )
    return f"{held}; {listed(concerns) if concerns else 'all in order'}"


def layers_in_words(facts: ModelFacts) -> str:
    """``24 of 123 layers are broken, 44 at risk``; what the strip of bands shows."""
    total = counted(facts.layer_count, "layer")
    if facts.layers_broken:
        verb = "is" if facts.layers_broken == 1 else "are"
        at_risk_clause = f", {facts.layers_at_risk:,} at risk" if facts.layers_at_risk else ""
        whose = "its" if facts.layers_broken == 1 else "their"
        return (
            f"{facts.layers_broken:,} of {total} {verb} broken by {whose} weights{at_risk_clause}"
        )
    if facts.layers_at_risk:
        verb = "is" if facts.layers_at_risk == 1 else "are"
        whose = "its" if facts.layers_at_risk == 1 else "their"
        return f"{facts.layers_at_risk:,} of {total} {verb} at risk by {whose} weights"
    sentence = f"none of {total} is broken or at risk by its weights"
    if facts.is_probed and facts.verdict in ("breaks", "at risk"):
        # What each layer loses, and what the network does, are two questions.
        losses = "their losses" if facts.mode == "weights" else "their losses and the activations'"
        sentence += f", but at the outputs {losses} add up"
    return sentence


def _headline_from_weights(facts: ModelFacts, broken_per_channel: int, scheme: Scheme) -> str:
    total = counted(facts.layer_count, "layer")
    if facts.layers_broken:
        verb = "breaks" if facts.layers_broken == 1 else "break"
        sentence = f"{facts.layers_broken} of {total} {verb} under {scheme.title}"
        if scheme.is_per_channel:
            return sentence
        per_channel_clause = (
            "none does" if broken_per_channel == 0 else f"{broken_per_channel} still do"
        )
        return f"{sentence}; per channel, {per_channel_clause}"
    if facts.layers_at_risk:
        verb = "is" if facts.layers_at_risk == 1 else "are"
        return f"{facts.layers_at_risk} of {total} {verb} at risk under {scheme.title}"
    return f"No blocker found in the weights under {scheme.title}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """What the causes of a layer's trouble are read from, under one scheme."""

    band: str
    channel_count: int
    flattened_channels: int  # channels all of whose weights come back as 0
    outlier_channels: int
    spread_bits: float | None
    narrow_channels: int  # channels narrower than NARROW_CHANNEL_SHARE of the largest weight
    symmetric_span_over_rms: float | None
    weight_min: float
    weight_max: float


def causes(facts: LayerFacts, scheme: Scheme) -> list[str]:
    """Why a layer suffers, most telling first, at most three; empty where nothing stands out."""
    if facts.band == "fine":
        return ["no weight-side problem"]
    reasons: list[str] = []
    of_channels = f"of {counted(facts.channel_count, 'channel')}"
    if not scheme.is_per_channel:
        if facts.flattened_channels:
            verb = "rounds" if facts.flattened_channels == 1 else "round"
            reasons.append(f"{facts.flattened_channels:,} {of_channels} {verb} to zero")
        # An outlier among ranges costs the others nothing unless it is much wider than they are.
        if facts.outlier_channels and (facts.spread_bits or 0) >= 1:
            noun = "outlier channel sets" if facts.outlier_channels == 1 else "outlier channels set"
            reasons.append(f"{facts.outlier_channels:,} {noun} the scale")
        if facts.spread_bits is not None and facts.spread_bits >= TELLING_SPREAD_BITS:
            kept = max(0.0, scheme.bits - facts.spread_bits)
            reasons.append(f"a typical channel keeps {kept:.1f} of {scheme.bits} bits")
        if not reasons and facts.narrow_channels:
            verb = "uses" if facts.narrow_channels == 1 else "use"
            limit = share(NARROW_CHANNEL_SHARE)
            reasons.append(
                f"{facts.narrow_channels:,} {of_channels} {verb} less than {limit} of the range"
            )
    span = facts.symmetric_span_over_rms
    if span is not None and span >= HEAVY_TAIL_SPAN_OVER_RMS:
        reasons.append("heavy tail: few large weights")
    if scheme.is_symmetric and _is_one_sided(facts.weight_min, facts.weight_max):
        reasons.append("one-sided: half of the codes stay unused")
    return reasons[:3]


def fine_from(bits_needed: Mapping[str, int | None], *, of_model: bool = False) -> str:
    """``Fine from 13 bits per tensor, 7 per channel, 6 in blocks of 32 on.``, and what fine is.

    Args:
        bits_needed: by granularity, None where the most bits are not enough; not empty.
        of_model: whether the bits are those that every layer of a model is fine with.
    """
    shares = {
        "tensor": "per tensor",
        "channel": "per channel",
        "block": f"in blocks of {BLOCK_SIZE}",
    }
    enough = [
        (number, shares[granularity])
        for granularity in shares
        if (number := bits_needed.get(granularity)) is not None
    ]
    never = [
        label
        for granularity, label in shares.items()
        if granularity in bits_needed and bits_needed[granularity] is None
    ]
    most = f"{MOST_BITS}{_unit('bits')}"
    neither = listed(never).replace(" and ", " or ")
    definition = f"Fine: nine in ten channels reach {FINE_DB:.0f}{_unit('dB')}, symmetric integers."
    if not enough:
        subject = "Not every layer is fine" if of_model else "Not fine"
        return f"{subject} even with {most} {neither}. {definition}"
    (first, label), *further = enough
    clauses = [
        f"{first}{_unit('bits')} {label}",
        *(f"{number} {label}" for number, label in further),
    ]
    subject = "Every layer is fine" if of_model else "Fine"
    but = f"; not even with {most} {neither}" if never else ""
    return f"{subject} from {', '.join(clauses)} on{but}. {definition}"


# A smaller gain may be the chance of rounding.
TELLING_GAIN_DB = 1.0


def best_remedy(now_db: float | None, remedies: Mapping[str, float | None]) -> str:
    """``best: per channel, +42.8 dB``; of remedies that hardly differ, the one named first.

    Args:
        now_db: what nine in ten channels reach, None or infinite where they come back exactly.
        remedies: what they would reach with each, None where nobody knows.
    """
    if now_db is None or not math.isfinite(now_db):
        return "nothing to gain"
    reachable_db = {name: value for name, value in remedies.items() if value is not None}
    most = max(reachable_db.values(), default=now_db)
    if most - now_db < TELLING_GAIN_DB:
        return "none of these helps" if reachable_db else ""
    name = next(name for name, value in reachable_db.items() if value >= most - TELLING_GAIN_DB)
    gain = reachable_db[name] - now_db
    return f"best: {name}, {db(gain, signed=True)}"


def equalization_hope(band: str, layers: int, with_pair: int, lifted: int) -> str:
    """What equalization could give a model: how many of its broken layers have a pair, and leave.

    Args:
        band: of the layers in question, broken or at risk.
        layers: how many there are, at least one.
        with_pair: how many of them have a neighbour to share scale with.
        lifted: how many of these would be in a better band, each pair taken by itself.
    """
    # ``broken`` stands before its noun, ``at risk`` behind.
    layers_of_it = f"{band} layers" if band == "broken" else f"layers {band}"
    if layers == 1:
        whom = f"the {layers_of_it.replace('layers', 'layer')} has"
    elif with_pair in (0, layers):
        whom = f"{'all' if with_pair else 'the'} {layers:,} {layers_of_it} have"
    else:
        whom = (
            f"{with_pair:,} of the {layers:,} {layers_of_it} {'has' if with_pair == 1 else 'have'}"
        )
    if not with_pair:
        return (
            f"Equalization gives nothing here: {whom} no neighbour to share scale with. No"
            " factor passes SiLU, HardSwish, Sigmoid or Clip at 6, nor values that something else"
            " reads too."
        )
    if with_pair == 1:
        outcome = f"it would {'no longer be' if lifted else 'still be'} {band}"
    elif lifted in (0, with_pair):
        outcome = f"{'none' if lifted else 'all'} of them would still be {band}"
    else:
        outcome = f"{lifted:,} of them would no longer be {band}"
    return (
        f"Equalization: {whom} a neighbour to share scale with, and {outcome}. A forecast from"
        " the weights alone, each pair taken by itself."
    )


def breakable(name: str) -> str:
    """A node name as safe HTML that may break after a slash, dot or underscore, never elsewhere."""
    pieces: list[str] = []
    for character in name:
        pieces.append(html.escape(character))
        if character in "/._":
            pieces.append("<wbr>")
    return "".join(pieces)


def markdown(text: str) -> str:
    """Text that Markdown shows as itself: every character it could read as a sign is escaped."""
    # Our own words hold no-break spaces, which count as unprintable.
    visible = NO_BREAK_SPACE.join(map(printable, text.split(NO_BREAK_SPACE)))
    return "".join(f"\\{c}" if c in _MARKDOWN_SIGNS else c for c in visible)


_MARKDOWN_SIGNS = frozenset("\\`*_{}[]()<>#+-.!|~$:&=^\"'/@")


def short_name(name: str, length: int = 28) -> str:
    """The end of a long node name, for a label inside a chart; tables never shorten names."""
    return name if len(name) <= length else "…" + name[-(length - 1) :]


def listed(items: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join((", ".join(items[:-1]), items[-1])) if len(items) > 1 else "".join(items)


def _unit(unit: str) -> str:
    return NO_BREAK_SPACE + unit


def _is_one_sided(low: float, high: float) -> bool:
    smaller, larger = sorted((max(0.0, -low), max(0.0, high)))
    return smaller < ONE_SIDED_SHARE * larger
