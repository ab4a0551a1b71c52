"""Many small runs, written fast by the real recorder; some of them not well."""

import dataclasses
import functools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import dynoscope
from dynoscope.findings import Judge
from dynoscope.measurement import Host, Measurement, ScalarEntry, Subject, Sum
from dynoscope.recorder import Recorder
from dynoscope.schema.folder import MANIFEST
from tests.benchmarks.long_run import measurements, subject
from tests.findings.trainings import normalized, train

STEPS, LAYERS, SWEEPS = 12, 3, 10

BROKEN = ("broken/cut-off", "broken/other")
"""Runs whose manifest cannot be read."""

SPECIAL = (
    "special/lost", "special/damaged", "special/still", "special/failed", *BROKEN
)  # fmt: skip


def write_fleet(folder: Path, runs: int) -> None:
    """So many runs in all, in folders of folders; the last ones are special."""
    special = (_lost, _damaged, _without_a_step, _failed, _broken)
    trained = min(4, runs // 10)
    for number in range(runs - len(SPECIAL) - trained):
        sweep = folder / f"sweep-{number % SWEEPS}"
        sick = number if number % 25 == 0 else None
        write_run(sweep / f"{number:03}", number, sick=sick)
    for number in range(trained):
        _trained(folder / "trained" / f"{number}", number)
    for make in special:
        make(folder)


def write_run(
    folder: Path, seed: int, *, steps: int = STEPS, sick: int | None = None
) -> None:
    """A run of made-up sums.

    Args:
        folder: where.
        seed: makes it unlike others.
        steps: how long.
        sick: from a number on, gradients are NaN in a step that depends on it.
    """
    watched = _watched(seed)
    recorder = _recorder(folder, watched, seed)
    recorder.start()
    _feed(recorder, watched, seed, steps, sick)
    recorder.close(None, 0)


def _watched(seed: int) -> Subject:
    watched = subject(LAYERS)
    given = {"lr": 1e-3 * (1 + seed % 7), "weight_decay": 0.1, "betas": (0.9, 0.95)}
    optimizer = dataclasses.replace(watched.optimizer, hyperparameters=(given, given))
    return dataclasses.replace(watched, optimizer=optimizer)


def _recorder(folder: Path, watched: Subject, seed: int) -> Recorder:
    folder.mkdir(parents=True)
    config = {"config": {"seed": seed, "data": {"name": f"set {seed % 3}"}}}
    return Recorder(folder, watched, config, strict=True, judge=Judge(watched))


def _feed(
    recorder: Recorder, watched: Subject, seed: int, steps: int, sick: int | None = None
) -> None:
    for measurement in _measurements(watched, seed, steps, sick):
        value = 3 / (1 + measurement.step) + 0.001 * seed
        for name in ("loss", "accuracy")[: 1 + seed % 2]:
            entry = measurement.step, measurement.wall_time, name
            recorder.log(ScalarEntry(*entry, functools.partial(float, value)))
        recorder.put(measurement)


def _measurements(
    watched: Subject, seed: int, steps: int, sick: int | None
) -> Iterator[Measurement]:
    random = np.random.default_rng(seed)
    for measurement in measurements(watched, steps):
        host = measurement.fetch()
        sums = host.sums * random.uniform(0.5, 2.0, host.sums.shape[1])
        if sick is not None and measurement.step > sick % steps:
            sums[Sum.GRAD_SQ, 0] = np.nan
            sums[Sum.NONFINITE, 0] = 3
        made = Host(sums, host.rows, host.channels)
        yield measurement._replace(fetch=_giving(made))


def _giving(host: Host) -> Callable[[], Host]:
    return lambda: host


def _trained(folder: Path, seed: int) -> None:
    """A real training, in which channels of a normalization layer die."""
    model = normalized(8)

    def dying(step: int, loss: Tensor) -> Tensor:
        if step == 3:
            with torch.no_grad():
                model[1].bias[: seed + 1] = -100.0  # type: ignore[index]
        return loss

    kind = (torch.optim.SGD, torch.optim.AdamW)[seed % 2]
    optimizer = kind(model.parameters(), lr=0.01)
    train(model, optimizer, 8, folder, [], loss_of=dying, config={"seed": seed})


def _lost(folder: Path) -> None:
    """What a SIGKILL leaves: the newest rows are in journals."""
    watched, live = _watched(1), folder / "live"
    recorder = _recorder(live, watched, 1)
    recorder.start()
    _feed(recorder, watched, 1, STEPS)
    while len(dynoscope.open_run(live).layers()) < STEPS * LAYERS:
        time.sleep(0.01)
    run = folder / "special" / "lost"
    shutil.copytree(live, run)
    recorder.close(None, 0)
    shutil.rmtree(live)
    manifest = json.loads((run / MANIFEST).read_text())
    manifest["writer"]["started"] = 1  # another process has its number by now
    (run / MANIFEST).write_text(json.dumps(manifest))


def _damaged(folder: Path) -> None:
    run = folder / "special" / "damaged"
    write_run(run, 2)
    (part,) = (run / "layers").glob("part-*")
    part.write_bytes(part.read_bytes()[:-100])


def _without_a_step(folder: Path) -> None:
    write_run(folder / "special" / "still", 3, steps=0)


def _failed(folder: Path) -> None:
    watched = _watched(4)
    recorder = _recorder(folder / "special" / "failed", watched, 4)
    recorder.start()
    _feed(recorder, watched, 4, 5)
    recorder.close(ValueError("no more data"), 2)


def _broken(folder: Path) -> None:
    for name, text in zip(BROKEN, ("{", "[]"), strict=True):
        (folder / name).mkdir(parents=True)
        (folder / name / MANIFEST).write_text(text)


def names_in(folder: Path) -> list[str]:
    """Runs as they lie there, found without the package."""
    found = [path.parent for path in folder.rglob(MANIFEST)]
    return sorted(path.relative_to(folder).as_posix() for path in found)
