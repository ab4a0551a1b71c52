"""A run in one row: what it was, how it ended, and what it came to."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from dynoscope.measurement import FloatArray
from dynoscope.reader.footers import EVERYTHING
from dynoscope.reader.rollup import roll_up_columns
from dynoscope.reader.series import layer_columns
from dynoscope.reader.standing import Standing, standing_of
from dynoscope.reader.turns import as_of_last_turns, turns_of

if TYPE_CHECKING:
    from dynoscope.reader.run import Run

__all__ = ["SUMMARISED", "Extent", "Summary", "summarise"]

SUMMARISED: Final = ("layers", "normalization", "scalars", "findings")
"""Tables that a summary reads."""

BUCKETS: Final = 1000
"""Into how many buckets a long run falls, at least: its means are those of buckets."""

OWN: Final = "dynoscope/"
"""How the names of scalars begin that dynoscope logs itself."""

SETTINGS: Final = ("lr", "weight_decay", "momentum", "beta1", "beta2")


class Extent(NamedTuple):
    """A logged number over a run: the last value; smallest and largest but NaN."""

    last: float
    min: float
    max: float


class Rotation(NamedTuple):
    """How a run turned its weights; see `Summary`."""

    mean: float = np.nan
    last: float = np.nan
    share: float = np.nan


@dataclasses.dataclass(frozen=True)
class Summary:
    """A run in short. What a run has no number for is NaN.

    Attributes:
        name: the run's name.
        standing: how it stands, what its model and its optimizer are.
        settings: `lr`, `weight_decay`, `momentum`, `beta1` and `beta2` as the
            optimizer was given them, of the parameter group with most elements.
        config: what the user gave as `config=`, nested keys joined by dots.
        scalars: what the user logged, by name.
        angular_update: mean angle by which a step turned the whole model, rad.
        angular_update_last: the angle at the last measured step, rad.
        rotation_share: measured over predicted angular update, each its mean over
            the steps that have both, of the median layer of those with a prediction.
        channels: channels of normalization layers.
        dead_channels: those that were dead when they were counted last.
        findings: how many there are, by severity.
        cost_per_step: seconds that watching took, for each measured step.
        cost_share: the same, as a share of the time that was watched.
    """

    name: str
    standing: Standing
    settings: Mapping[str, float]
    config: Mapping[str, Any]
    scalars: Mapping[str, Extent]
    angular_update: float
    angular_update_last: float
    rotation_share: float
    channels: int
    dead_channels: int
    findings: Mapping[str, int]
    cost_per_step: float
    cost_share: float

    def row(self) -> dict[str, Any]:
        """All of it as one row.

        Keys are the attributes' names, those of `standing` and `settings` as they
        are; then `errors`, `warnings`, `notes`; `config.KEY`; `last.NAME`, `min.NAME`
        and `max.NAME` of scalars.
        """
        told = ("standing", "settings", "config", "scalars", "findings")
        fields = [f.name for f in dataclasses.fields(self) if f.name not in told]
        standing = dataclasses.asdict(self.standing)
        return {
            "name": self.name,
            **standing,
            "problems": "\n".join(self.standing.problems),
            **self.settings,
            **{name: getattr(self, name) for name in fields},
            **{f"{name}s": count for name, count in self.findings.items()},
            **{f"config.{key}": value for key, value in self.config.items()},
            **{
                f"{which}.{name}": value
                for name, extent in self.scalars.items()
                for which, value in extent._asdict().items()
            },
        }


def summarise(run: "Run") -> Summary:
    """Read a run's tables, long ones in coarse, and sum it up."""
    standing, manifest = standing_of(run), run.manifest
    scalars = run.table("scalars", ["step", "name", "value"])
    rotation = _rotation(run, manifest)
    channels, dead = _channels(run)
    severities = run.findings()["severity"].tolist()
    cost, measured = run.cost, standing.measured
    return Summary(
        name=run.name,
        standing=standing,
        settings=_settings(manifest),
        config=dict(_flat("", manifest.get("config") or {})),
        scalars=_extents(scalars),
        angular_update=rotation.mean,
        angular_update_last=rotation.last,
        rotation_share=rotation.share,
        channels=channels,
        dead_channels=dead,
        findings={s: severities.count(s) for s in ("error", "warning", "note")},
        cost_per_step=cost.seconds / measured if measured else np.nan,
        cost_share=np.nan if cost.share is None else cost.share,
    )


def _settings(manifest: Mapping[str, Any]) -> dict[str, float]:
    groups = manifest["optimizer"]["hyperparameters"]
    sizes = [0] * len(groups)
    for layer in manifest["layers"]:
        sizes[layer["group"]] += layer["numel"]
    given = dict(groups[int(np.argmax(sizes))]) if groups else {}
    betas = given.get("betas")
    if isinstance(betas, list) and len(betas) > 1:
        given |= {"beta1": betas[0], "beta2": betas[1]}
    # A scheduler has changed lr already when a run starts, and keeps the first.
    values = {name: given.get(f"initial_{name}", given.get(name)) for name in SETTINGS}
    return {
        name: float(value) if isinstance(value, int | float) else np.nan
        for name, value in values.items()
    }


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), entry)
    else:
        yield prefix, json.dumps(value) if isinstance(value, list) else value


def _extents(scalars: pa.Table) -> dict[str, Extent]:
    """What was logged, in the order in which its names first came."""
    frame = scalars.to_pandas()
    found = {}
    for name, rows in frame.groupby("name", sort=False):
        if not str(name).startswith(OWN):
            values = rows["value"].to_numpy(float)
            # Of those logged at the last step, the last one.
            at = len(values) - 1 - int(rows["step"].to_numpy()[::-1].argmax())
            known = values[~np.isnan(values)]
            ends = (known.min(), known.max()) if len(known) else (np.nan, np.nan)
            found[str(name)] = Extent(float(values[at]), *map(float, ends))
    return found


def _channels(run: "Run") -> tuple[int, int]:
    """Channels of normalization layers, and how many were dead in the end."""
    rows = run.table("normalization", ["step", "layer", "channels", "dead"])
    frame = rows.to_pandas().sort_values("step", kind="stable")
    ends = frame.drop_duplicates("layer", keep="last")
    return int(ends["channels"].sum()), int(ends["dead"].sum())


@np.errstate(all="ignore")  # NaN and infinity are measured, not mistakes
def _rotation(run: "Run", manifest: Mapping[str, Any]) -> Rotation:
    numels = {layer["name"]: layer["numel"] for layer in manifest["layers"]}
    found = layer_columns(run.folder / "layers", numels, EVERYTHING, BUCKETS)
    run.warn_of(found.problems)
    if not len(found.step):
        return Rotation()
    turns = turns_of(manifest, list(numels))
    whole = roll_up_columns(as_of_last_turns(turns, found.arrays))["angular_update"]
    turned, predicted = (
        found.arrays[name] for name in ("angular_update", "pred_angular_update")
    )
    both = np.isfinite(turned) & np.isfinite(predicted) & (predicted > 0)
    shares = _mean(turned, both) / _mean(predicted, both)
    shares = shares[np.isfinite(shares)]
    return Rotation(
        mean=float(_mean(whole, np.isfinite(whole))),
        last=float(whole[-1]),
        share=float(np.median(shares)) if len(shares) else np.nan,
    )


def _mean(values: FloatArray, known: np.ndarray) -> FloatArray:
    """Mean over steps of what is known, NaN where nothing is."""
    mean: FloatArray = np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)
    return mean
