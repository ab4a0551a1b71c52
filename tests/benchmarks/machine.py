"""What a part was measured on: the facts that its figures depend on."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.options import Options

__all__ = ["facts", "load", "note"]

PACKAGES = ("torch", "numpy", "pyarrow", "duckdb", "wandb", "tensorboard")


def facts(options: Options) -> dict[str, Any]:
    """Of this machine and this part; no names of hosts or folders."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "memory_gb": round(memory / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES if importlib.util.find_spec(name)},
        "quick": options.quick,
        "load_at_start": round(options.load, 2),
        "seconds": round(time.time() - options.began, 1),
        "date": time.strftime("%Y-%m-%d", time.gmtime(options.began)),
    }


def note(part: str, options: Options) -> None:
    """Keep the facts of a part beside those of the others."""
    path = options.results / "machine.json"
    known = {**load(options.results), part: facts(options)}
    text = json.dumps(dict(sorted(known.items())), indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def load(results: Path) -> dict[str, dict[str, Any]]:
    """Facts by part."""
    path = results / "machine.json"
    if not path.exists():
        return {}
    known: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return known


def _cpu() -> str:
    """Name of the processor, as Linux has it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or "unknown"


def _version(name: str) -> str:
    return importlib.metadata.version(name).split("+")[0]
