import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from dynoscope.dashboard import start
from dynoscope.errors import DynoscopeError
from tests.dashboard.runs import WrittenRun


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def test_serves_and_stops(written: WrittenRun) -> None:
    server = start(written.path.parent, port=0)
    try:
        page = fetched(server.url)
        assert server.url.startswith("http://127.0.0.1:")
        assert "http://" not in page.replace(server.url, "")
        assert "https://" not in page
        assert "rowData" in fetched(server.url + "_dash-layout")
    finally:
        server.stop()
    with pytest.raises(urllib.error.URLError):
        fetched(server.url)


def test_a_page_before_any_run_says_what_to_type(tmp_path: Path) -> None:
    server = start(tmp_path / "none", port=0)
    try:
        layout = fetched(server.url + "_dash-layout")
    finally:
        server.stop()
    assert "with dynoscope.watch(model, optimizer, run=" in layout
    assert json.loads(layout)


def test_a_busy_port_says_what_to_do(tmp_path: Path) -> None:
    server = start(tmp_path, port=0)
    try:
        port = int(server.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(DynoscopeError, match=f"port {port}.*--port 0"):
            start(tmp_path, port=port)
    finally:
        server.stop()


def test_an_impossible_host_says_so(tmp_path: Path) -> None:
    with pytest.raises(DynoscopeError, match="--host"):
        start(tmp_path, host="192.0.2.1", port=0)


def test_torch_is_not_loaded() -> None:
    code = "import sys, dynoscope.dashboard; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
