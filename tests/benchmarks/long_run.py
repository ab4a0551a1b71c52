"""Long runs: how fast they are written, how large they are, how soon they are read.

The run is written by the real recorder, fed with made-up sums as fast as it takes
them. Each figure of the reader is that of a fresh process; before a cold one the
operating system is asked to forget the files.

    python -m tests.benchmarks.long_run [--steps 100000] [--layers 300] [--seed 0]
        [--folder F]
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from dynoscope import open_run
from dynoscope.measurement import (
    FloatArray,
    GroupState,
    Host,
    Layer,
    Measurement,
    OptimizerInfo,
    ScalarEntry,
    Subject,
    Sum,
)
from dynoscope.recorder import Recorder
from dynoscope.sealing import Sealer, compact
from tests.benchmarks.figures import Figure, keep, middle, once
from tests.benchmarks.options import parse

_T = TypeVar("_T")

LONG = "long"
"""Name of the run, for other parts that read it."""

LOOKS = 4
"""At a run by the reader, each in a process of its own; the first is cold."""

SHAPES = {"attention": (384, 384), "mlp": (1536, 384), "norm": (384,)}
NOISES = 257
"""Different steps that are made up; a prime, so that batches differ, too."""


class Written(NamedTuple):
    """What writing a run took, the time to seal it apart."""

    rows: int
    seconds: float
    closing: float
    cpu: float


def subject(layers: int) -> Subject:
    """A model of so many layers, decayed and not, under AdamW."""
    kinds = list(SHAPES.items())
    listed = []
    for n in range(layers):
        name, shape = kinds[n % len(kinds)]
        listed.append(
            Layer(
                name=f"blocks.{n // len(kinds)}.{name}.weight",
                shape=shape,
                dtype="float32",
                module="Linear",
                group=int(name == "norm"),
                rows=0,
            )
        )
    adamw = OptimizerInfo(
        name="AdamW",
        kinds=("adamw", "adamw"),
        reasons=("", ""),
        has_momentum=True,
        hyperparameters=({"eps": 1e-8}, {"eps": 1e-8}),
        has_second_moment=True,
    )
    return Subject("Made up", tuple(listed), (), adamw)


def measurements(watched: Subject, steps: int, seed: int = 0) -> Iterator[Measurement]:
    """Steps of a training that never was: slow trends, and noise in every digit."""
    count = len(watched.layers)
    sums = _sums(watched, seed)
    has_grad, limits = np.ones(count, bool), np.full(count, np.inf)
    nothing = np.empty((3, 0))
    random = np.random.default_rng([seed, 1])
    start, jitter = time.time(), random.exponential(0.02, NOISES)
    for step in range(steps):
        lr = 1e-3 * min(1, (step + 1) / 500) * (1 + math.cos(math.pi * step / steps))
        groups = (
            GroupState(lr, 0.1, beta1=0.9, beta2=0.95),
            GroupState(lr, 0.0, beta1=0.9, beta2=0.95),
        )
        # The norms grow, so that no step is quite like another.
        host = Host(sums[step % NOISES] * (1 + step / steps), nothing, nothing)
        yield Measurement(
            subject=watched,
            step=step,
            own_steps=(step,),
            wall_time=start + 0.25 * step + jitter[step % NOISES],
            groups=_giving(groups),
            has_grad=has_grad,
            limits=limits,
            fetch=_giving(host),
            nbytes=host.sums.nbytes,
            hook_seconds=1e-3,
        )


def _giving(value: _T) -> Callable[[], _T]:
    return lambda: value


def _sums(watched: Subject, seed: int) -> FloatArray:
    """Sums of some steps that fit together, shape (NOISES, len(Sum), layers)."""
    random = np.random.default_rng(seed)
    numel = np.array([layer.numel for layer in watched.layers], float)
    shape = (NOISES, len(numel))
    size = {
        "weight": 0.02 * np.exp(0.01 * random.normal(size=shape)),
        "grad": 1e-3 * np.exp(0.5 * random.normal(size=shape)),
        "momentum": 3e-4 * np.exp(0.3 * random.normal(size=shape)),
        "update": 1e-4 * np.exp(0.1 * random.normal(size=shape)),
        "scaled": 0.5 * np.exp(0.1 * random.normal(size=shape)),
    }

    def product(a: str, b: str, mean: float) -> FloatArray:
        cosine = np.clip(mean + 0.05 * random.normal(size=shape), -1, 1)
        return numel * size[a] * size[b] * cosine

    sums = np.zeros((NOISES, len(Sum), len(numel)))
    sums[:, Sum.WEIGHT_SQ] = numel * size["weight"] ** 2
    sums[:, Sum.WEIGHT_MAX] = 5 * size["weight"]
    sums[:, Sum.GRAD_SQ] = numel * size["grad"] ** 2
    sums[:, Sum.GRAD_ABS] = numel * size["grad"] * random.uniform(0.7, 0.8, shape)
    sums[:, Sum.MOMENTUM_SQ] = numel * size["momentum"] ** 2
    sums[:, Sum.TURN_SQ] = numel * size["update"] ** 2
    sums[:, Sum.SCALED_GRAD_SQ] = numel * size["scaled"] ** 2
    sums[:, Sum.WEIGHT_GRAD] = product("weight", "grad", 0.0)
    sums[:, Sum.WEIGHT_UPDATE] = product("weight", "update", -0.1)
    sums[:, Sum.MOMENTUM_GRAD] = product("momentum", "grad", 0.3)
    sums[:, Sum.GRAD_UPDATE] = product("grad", "update", -0.3)
    sums[:, Sum.WEIGHT_SCALED_GRAD] = product("weight", "scaled", 0.0)
    sums[:, Sum.MOVED] = numel
    return sums


def write_run(folder: Path, steps: int, layers: int, seed: int = 0) -> Written:
    """Write a run through the real recorder, sealed as it goes."""
    watched = subject(layers)
    folder.mkdir(parents=True)
    settings = {"config": {"seed": seed}, "every": 1}
    recorder = Recorder(folder, watched, settings, strict=True, sealer=Sealer(folder))
    recorder.start()
    start, cpu = time.perf_counter(), time.process_time()
    for measurement in measurements(watched, steps, seed):
        while not recorder.has_room():
            time.sleep(1e-3)
        put(recorder, measurement)
    written = time.perf_counter()
    recorder.close(None, 0)
    end = time.perf_counter()
    return Written(
        steps * layers, end - start, end - written, time.process_time() - cpu
    )


def put(recorder: Recorder, measurement: Measurement) -> None:
    """Give the recorder a step and its loss."""
    loss = _giving(2 + math.exp(-measurement.step / 1e4))
    entry = ScalarEntry(measurement.step, measurement.wall_time, "loss", loss)
    recorder.log(entry)  # first: a full queue refuses it
    recorder.put(measurement)


def opened(folder: Path) -> dict[str, float]:
    """Seconds that a reader waits; the first look is cold if the files are."""
    start = time.perf_counter()
    run = open_run(folder)
    overview = run.overview("angular_update")
    looked = time.perf_counter()
    names, last = run.layer_names, run.last_step or 0
    hundredth = last // 100
    found = {
        "open and overview": looked - start,
        "MB by then": megabytes(),
        "buckets": len(overview.step),
        "overview again": _median(lambda: run.overview("weight_norm")),
        "first series": _median(lambda: run.series("weight_norm", names[0]), 1),
        "series": _median(lambda: run.series("update_norm", names[len(names) // 2])),
        "series of a hundredth": _median(
            lambda: run.series("grad_l2", names[-1], (last // 2, last // 2 + hundredth))
        ),
        "series of the model": _median(lambda: run.series("weight_norm", "*"), 1),
        "loss": _median(lambda: run.series("value", "loss", table="scalars")),
    }
    cursor = run.cursor("layers")
    cursor.skip()
    found["poll"] = _median(cursor.poll, 20)
    found["MB at most"] = megabytes()
    start = time.perf_counter()
    run.sql("SELECT layer, max(angular_update) FROM layers GROUP BY layer")
    found["query of one column"] = time.perf_counter() - start
    return found


def megabytes() -> float:
    """Most memory that this process has had; `ru_maxrss` counts its parent's, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _median(work: Callable[[], Any], times: int = 5) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def forget(folder: Path) -> None:
    """Ask the operating system to drop the files from its cache."""
    for path in folder.glob("*/*"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sizes(folder: Path) -> dict[str, float]:
    """Bytes by table and kind of file, and how many files there are."""
    found: dict[str, float] = {}
    for path in folder.glob("*/*"):
        kind = f"{path.parent.name} {path.name.split('-')[0]}"
        found[f"{kind} files"] = found.get(f"{kind} files", 0) + 1
        found[f"{kind} bytes"] = found.get(f"{kind} bytes", 0) + path.stat().st_size
    return found


def _compacted(folder: Path) -> dict[str, float]:
    """Seal what full speed has left over."""
    start = time.perf_counter()
    compact(folder)
    seconds = time.perf_counter() - start
    paths = [*folder.glob("layers/*"), *folder.glob("levels/layers-*")]
    size = sum(path.stat().st_size for path in paths)
    return {"seconds": seconds, "MB": megabytes(), "bytes": size}


def _elsewhere(what: str, folder: Path) -> dict[str, float]:
    """Do it in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, what, "--folder", str(folder)]
    found: dict[str, float] = json.loads(subprocess.check_output(command))
    return found


def _figures(found: Mapping[str, float], case: str) -> list[Figure]:
    """Seconds, megabytes and counts, by what they are called."""
    figures = []
    for what, value in found.items():
        if what.startswith("MB"):
            figures.append(once(case, what.replace("MB", "memory"), value, "MB"))
        elif what == "buckets":
            figures.append(once(case, what, value))
        else:
            figures.append(once(case, what, 1e3 * value, "ms"))
    return figures


def measure(folder: Path, steps: int, layers: int) -> list[Figure]:
    """Write a run, weigh it, seal it, read it."""
    written = write_run(folder, steps, layers)
    weighed = sizes(folder)
    compacting = _elsewhere("--compact", folder)
    forget(folder)
    looks = [_elsewhere("--read", folder) for _ in range(LOOKS)]
    rows = written.rows
    warm = [_figures(look, "read, warm") for look in looks[1:]]
    return [
        once("run", "steps", steps),
        once("run", "layers", layers),
        once("write", "rows per second", rows / written.seconds),
        once("write", "CPU per row", 1e6 * written.cpu / rows, "us"),
        once("write", "closing", written.closing, "s"),
        once("write", "memory", megabytes(), "MB"),
        *(once("disk", kind, count) for kind, count in sorted(weighed.items())),
        once("disk", "a row of layers, compact", compacting["bytes"] / rows, "bytes"),
        once("compact", "time", compacting["seconds"], "s"),
        once("compact", "memory", compacting["MB"], "MB"),
        *_figures(looks[0], "read, cold"),
        *(
            middle(same[0].case, same[0].what, [f.value for f in same], same[0].unit)
            for same in zip(*warm, strict=True)
        ),
    ]


def main() -> None:
    """Write, weigh, read."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int)
    parser.add_argument("--layers", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="keep the run here")
    parser.add_argument("--seed", type=int, default=0, help="of what is made up")
    parser.add_argument("--read", action="store_true", help="only read that run")
    parser.add_argument("--compact", action="store_true", help="only seal that run")
    options = parse(__doc__, parser)
    if options.read or options.compact:
        work = opened if options.read else _compacted
        print(json.dumps(work(options.folder)))
        return
    steps = options.steps or (2_000 if options.quick else 100_000)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or (options.scratch or Path(scratch)) / LONG
        if folder.exists():
            shutil.rmtree(folder)
        keep("long_run", measure(folder, steps, options.layers), options)


if __name__ == "__main__":
    main()
