"""Serve the page from this machine, in a thread or until Ctrl-C."""

import errno
import logging
import os
import socket
import threading
import webbrowser
from pathlib import Path
from typing import Final

from dash import Dash
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from dynoscope.dashboard.callbacks import register_choices
from dynoscope.dashboard.drawing import register_drawing
from dynoscope.dashboard.layout import page
from dynoscope.dashboard.store import Store
from dynoscope.errors import DynoscopeError
from dynoscope.remote import is_uri, shown

__all__ = ["Server", "build_app", "serve", "start"]

# Runs before anything is drawn, so that a dark page never flashes white.
INDEX: Final = """<!DOCTYPE html>
<html lang="en">
  <head>
    {%metas%}
    <title>{%title%}</title>
    {%favicon%}
    <script>
      (() => {
        let kept = "auto";
        try { kept = localStorage.getItem("mantine-color-scheme-value") || kept; }
        catch {}
        const dark = matchMedia("(prefers-color-scheme: dark)").matches;
        const scheme = kept === "auto" ? (dark ? "dark" : "light") : kept;
        document.documentElement.dataset.mantineColorScheme = scheme;
      })();
    </script>
    {%css%}
  </head>
  <body>
    {%app_entry%}
    <footer>{%config%}{%scripts%}{%renderer%}</footer>
  </body>
</html>
"""


def build_app(runs: str | os.PathLike[str]) -> Dash:
    """The application over a run or a folder of runs, which need not exist yet.

    Raises:
        StoreError: the runs are at a URI that cannot be read; the message says why.
    """
    store = Store(runs)
    app = Dash(
        "dynoscope",
        title="dynoscope",
        update_title="",
        assets_folder=str(Path(__file__).parent / "assets"),
        serve_locally=True,
        index_string=INDEX,
        enable_mcp=False,
        add_log_handler=False,
        suppress_callback_exceptions=True,  # small plots come and go
    )
    app.logger.setLevel(logging.ERROR)
    app.layout = lambda: page(store)
    register_choices(app, store)
    register_drawing(app, store)
    return app


class Server:
    """The dashboard, served from a thread of this process.

    Attributes:
        url: where the page is.
    """

    def __init__(self, server: BaseWSGIServer, host: str) -> None:
        self._server = server
        shown = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
        self.url = f"http://{shown}:{server.port}/"
        self._thread = threading.Thread(
            target=server.serve_forever, name="dynoscope-dashboard", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Return when the server was stopped."""
        while self._thread.is_alive():
            self._thread.join(0.5)  # in pieces, or Windows would not see Ctrl-C

    def stop(self) -> None:
        """Stop serving and close the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Say nothing of requests: once a second is too often to be news."""


def start(
    runs: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8050,
    browser: bool = False,
) -> Server:
    """Serve the dashboard in the background.

    Args:
        runs: a run, or a folder of runs, or the URI of either; it may come into being
            later.
        host: address to bind to.
        port: port; 0 picks a free one.
        browser: whether to open the page.

    Raises:
        DynoscopeError: the port cannot be had, `runs` is a file, or a URI that cannot
            be read; the message says what to do.
    """
    if not is_uri(runs) and Path(runs).exists() and not Path(runs).is_dir():
        raise DynoscopeError(
            f"{runs} is not a folder: pass a run's folder, or one with runs in it"
        )
    app = build_app(runs)
    try:
        # Bound here: werkzeug would print its own advice on a busy port, and exit.
        with socket.create_server((host, port)) as bound:
            server = make_server(
                host,
                bound.getsockname()[1],
                app.server,
                threaded=True,
                request_handler=_Quiet,
                fd=bound.fileno(),
            )
    except OSError as error:
        raise DynoscopeError(_refusal(host, port, error)) from None
    serving = Server(server, host)
    if browser:
        webbrowser.open(serving.url)
    return serving


def serve(
    runs: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8050,
    browser: bool = True,
) -> None:
    """Serve the dashboard until Ctrl-C; see `start`."""
    server = start(runs, host=host, port=port, browser=browser)
    print(f"dynoscope: {shown(str(runs))} at {server.url} (Ctrl-C ends)", flush=True)
    try:
        server.wait()
    except KeyboardInterrupt:
        print()
    finally:
        server.stop()


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is taken: another dashboard may be running; "
            "pass --port 0 for a free one"
        )
    return f"cannot serve at {host}:{port} ({error}); pass another --host or --port"
