"""Layers on the CPU, all at once, by a kernel in C that is compiled when first needed.

Where there is no C compiler, or it fails, `available` is False and the same sums are
taken by torch's own operations, in two to four times the time.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dynoscope.measurement import BOX_TOLERANCE, Sum
from dynoscope.metrics.sums.addresses import Addresses
from dynoscope.metrics.sums.blocks import Views
from dynoscope.metrics.sums.spec import Spec
from dynoscope.metrics.sums.tensors import (
    SecondMoments,
    Tensors,
    count_nonfinite,
    is_dense,
)
from dynoscope.sharding import layout, local

__all__ = ["Native", "available", "is_supported"]

SOURCE: Final = Path(__file__).with_name("native.c")

SWITCH: Final = "DYNOSCOPE_NATIVE"
"""Environment variable; 0 keeps the compiler out of it."""

CHUNK: Final = 1 << 15
"""Elements of a chunk, what a thread takes at a time."""

SERIAL: Final = 1 << 16
"""Elements below which a second thread does not pay."""

FLAGS: Final = (
    *("-O3", "-march=native", "-shared", "-fPIC"),
    # sums may be taken in any order; NaN and infinity stay what they are
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
    "-fassociative-math",
)

_CODES: Final = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}

_NO_MOMENT: Final = None, 0.0, 0.0

logger = logging.getLogger("dynoscope")


def available() -> bool:
    """Whether the kernel can be used on this machine; compiles it if need be."""
    return os.environ.get(SWITCH, "1") != "0" and _library() is not None


def is_supported(parameter: Tensor) -> bool:
    """Whether the kernel takes the sums of this parameter."""
    return (
        parameter.device.type == "cpu"
        and parameter.dtype in _CODES
        and local(parameter).numel() > 0
        and is_dense(local(parameter))
        and available()
    )


class Native:
    """Layers of a part, on the CPU: a `Block` of one column each."""

    def __init__(
        self, specs: Sequence[Spec], views: Views, kept: Sequence[Tensor]
    ) -> None:
        self.is_finite: bool | None = None
        self._parameters = [spec.parameter for spec in specs]
        self.sums, self._rows, self._channels = views
        self._is_sharded = any(layout(p) is not None for p in self._parameters)
        weights = self._weights()
        self._saved = [
            place.as_strided(weight.shape, weight.stride())
            for place, weight in zip(kept, weights, strict=True)
        ]
        output = np.array(
            [
                *(view.data_ptr() for view in (self.sums, self._rows, self._channels)),
                *(view.stride(0) for view in (self.sums, self._rows, self._channels)),
            ],
            np.int64,
        )
        layers, chunks = _layers(specs, self._saved), _chunks(specs)
        partial = np.empty((len(chunks), len(Sum)))
        self._limits: Sequence[float] = ()
        self._settings = np.zeros((len(specs), 4))
        self._inputs = {
            name: Addresses(weights, _CODES)
            for name in ("weight", "grad", "momentum", "second")
        }
        self._wide = np.array([p.dtype == torch.float64 for p in self._parameters])
        self._is_large = sum(spec.numel for spec in specs) > SERIAL
        library = _library()
        assert library is not None  # else no such block is made
        self._functions = library
        # The kernel's arguments stay where they are.
        self._arrays = chunks, layers, self._settings, output, partial
        self._count, self._at = len(chunks), [x.ctypes.data for x in self._arrays]

    def before(
        self,
        grads: Tensors,
        momenta: Tensors,
        limits: Sequence[float],
        *,
        again: bool = False,
    ) -> None:
        """See `Block`."""
        if limits != self._limits:
            self._limits = limits
            # as the weights would have it: the nearest float32
            nearest = np.array(limits, np.float32).astype(float)
            self._settings[:, 0] = np.where(self._wide, limits, nearest)
            self._settings[:, 1] = self._settings[:, 0] * (1 - BOX_TOLERANCE)
        weights = self._saved if again else self._weights()
        self._inputs["grad"].let_go()
        self._call("before", weights, grads, "momentum", momenta)

    def after(self, grads: Tensors, seconds: SecondMoments) -> None:
        """See `Block`."""
        there = (second or _NO_MOMENT for second in seconds)
        values, corrections, self._settings[:, 3] = zip(*there, strict=True)
        self._settings[:, 2] = [*map(float, corrections)]
        finite = self._call("after", self._weights(), grads, "second", values)
        self.is_finite = bool(finite)
        self._inputs["grad"].let_go()

    def count(self, grads: Tensors, momenta: Tensors) -> None:
        """See `Block`."""
        count_nonfinite(self._parameters, grads, momenta, self.sums)

    def _weights(self) -> Sequence[Tensor]:
        """The weights that are here; shards may have moved."""
        if self._is_sharded:
            return [local(parameter) for parameter in self._parameters]
        return self._parameters

    def _call(
        self, name: str, weights: Tensors, grads: Tensors, third: str, values: Tensors
    ) -> int:
        chunks, layers, settings, output, partial = self._at
        return self._functions[name](
            self._count,
            chunks,
            layers,
            self._inputs["weight"].address_of(weights),
            self._inputs["grad"].address_of(grads),
            self._inputs[third].address_of(values),
            settings,
            output,
            partial,
            torch.get_num_threads() if self._is_large else 1,
        )


def _layers(specs: Sequence[Spec], saved: Sequence[Tensor]) -> npt.NDArray[np.int64]:
    """The C struct Layer of each."""
    table, row, channel = [], 0, 0
    for spec, kept in zip(specs, saved, strict=True):
        numel = spec.numel
        table.append(
            [
                numel,
                spec.row_length,
                row,
                channel if spec.channels else -1,
                _CODES[spec.parameter.dtype],
                kept.data_ptr(),
            ]
        )
        columns = spec.columns(0)
        row, channel = row + columns.rows, channel + columns.channels
    return np.array(table, np.int64)


def _chunks(specs: Sequence[Spec]) -> npt.NDArray[np.int64]:
    """The C struct Chunk of each: a layer's follow each other, of whole rows each."""
    table = []
    for index, spec in enumerate(specs):
        numel, unit = spec.numel, spec.row_length or 1
        size = max(CHUNK // unit, 1) * unit
        table += [
            (index, start, min(size, numel - start)) for start in range(0, numel, size)
        ]
    return np.array(table, np.int64)


@functools.cache
def _library() -> Mapping[str, Callable[..., int]] | None:
    """Functions of the compiled kernel; None where it cannot be had."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        logger.debug("no C compiler: the sums are taken by torch's operations")
        return None
    try:
        path = _compiled(compiler)
        library = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        logger.debug("the C kernel cannot be compiled: %s", detail)
        return None
    functions = {}
    for name in ("before", "after"):
        function = getattr(library, f"dynoscope_{name}")
        function.restype = ctypes.c_int
        function.argtypes = [ctypes.c_int64, *[ctypes.c_void_p] * 8, ctypes.c_int]
        functions[name] = function
    return functions


def _compiled(compiler: str) -> Path:
    """The shared library, from the cache or made now."""
    flags = [*FLAGS]
    # torch's own threads, which are there already: others would compete with them.
    if hasattr(ctypes.CDLL(None), "GOMP_parallel"):
        flags.append("-fopenmp")
    key = hashlib.sha256()
    for part in (SOURCE.read_bytes(), " ".join(flags).encode(), _processor()):
        key.update(part)
    path = _cache() / f"native-{key.hexdigest()[:16]}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        object_file, library = Path(folder) / "native.o", Path(folder) / "native.so"
        compiling = [flag for flag in flags if flag != "-shared"]
        # Linked without -fopenmp: its functions are found in what torch has loaded.
        _run(compiler, *compiling, "-c", str(SOURCE), "-o", str(object_file))
        _run(compiler, "-shared", str(object_file), "-o", str(library), "-lm")
        library.replace(path)  # two processes may do this at once
    return path


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dynoscope"


def _processor() -> bytes:
    """What tells processors apart: a home may be shared by several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor().encode()
    return "\n".join(
        sorted({x for x in lines if x.startswith(("model name", "flags", "Features"))})
    ).encode()
