"""The command line: parse, then call one room."""

import contextlib
import sys
from collections.abc import Iterator
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from dynoscope import __version__
from dynoscope.errors import DynoscopeError

__all__ = ["main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Run = Annotated[str, typer.Argument(help="A run: its folder, or its URI.")]
Runs = Annotated[
    str, typer.Argument(help="A run, or a folder of runs, or the URI of either.")
]
Port = Annotated[int, typer.Option(help="Port to serve on; 0 picks a free one.")]
Host = Annotated[str, typer.Option(help="Address to bind to.")]


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"dynoscope {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say it."),
    ] = False,
) -> None:
    """See how the optimizer is really moving the weights."""


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """One line for what the user can mend; a traceback for what we must."""
    try:
        yield
    except DynoscopeError as error:
        print(f"dynoscope: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


@app.command()
def dash(
    runs: Runs = "runs",
    port: Port = 8050,
    host: Host = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Serve the live dashboard of a folder of runs."""
    from dynoscope.dashboard import serve

    with _plain_errors():
        serve(runs, host=host, port=port, browser=browser)


@app.command()
def diff(
    a: Run,
    b: Annotated[str, typer.Argument(help="The run to hold against it.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with plots to this file.")
    ] = None,
) -> None:
    """Compare two runs: configuration, then every metric of every layer."""
    from dynoscope.diff import diff as compare
    from dynoscope.diff.text import print_diff, progress_bar

    with _plain_errors():
        with progress_bar() as progress:
            found = compare(a, b, progress=progress)
        if html is not None:
            from dynoscope.dashboard.report import write_report

            write_report(found, html)
            print(f"dynoscope: wrote {html}", file=sys.stderr)
        if json:
            print(found.to_json())
        else:
            print_diff(found)


@app.command()
def findings(
    run: Run,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is odd about a run, why, and what to do about it."""
    from dynoscope.findings import examine
    from dynoscope.findings.text import print_findings
    from dynoscope.reader import open_run

    with _plain_errors():
        opened = open_run(run)
        found = examine(opened)
        if json:
            print(dumps([finding.row() for finding in found]))
        else:
            print_findings(opened.name, found)


@app.command()
def fleet(
    places: Annotated[
        list[str], typer.Argument(help="Folders of runs, or URIs; * may stand in them.")
    ],
    cluster: Annotated[
        str | None,
        typer.Option(help="A Dask scheduler, tcp://host:8786, or how many processes."),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="Column to sort by: last.loss, -step.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Logged number to show; loss if there is one.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write all columns to this file.")
    ] = None,
    athena: Annotated[
        str | None, typer.Option(help="Print SQL by which Athena reads this table.")
    ] = None,
) -> None:
    """Sum up many runs, a line each."""
    from dynoscope.fleet import open_fleet
    from dynoscope.fleet.text import print_fleet, sorted_by

    workers = int(cluster) if cluster and cluster.isdecimal() else cluster
    with _plain_errors(), open_fleet(places, workers) as opened:
        if athena is not None:
            print(opened.athena(athena), end="")
            return
        frame = opened.summaries()
        frame = frame if sort is None else sorted_by(frame, sort)
        if csv is not None:
            frame.to_csv(csv, index=False)
            print(f"dynoscope: wrote {csv}", file=sys.stderr)
        print_fleet(frame, metric)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A run's folder.")],
    uri: Annotated[str, typer.Argument(help="Where to: s3://bucket/runs/lion.")],
    overwrite: Annotated[bool, typer.Option(help="Replace the run there.")] = False,
) -> None:
    """Upload a run, such as one whose store could not be reached at its end."""
    from dynoscope.remote import push as send

    with _plain_errors():
        print(f"dynoscope: {folder} is at {send(folder, uri, overwrite=overwrite)}")


@app.command()
def query(
    run: Run,
    sql: Annotated[str, typer.Argument(help='"SELECT ... FROM layers"')],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask a run in SQL; its tables are views: layers, neurons, scalars and so on."""
    from dynoscope.reader import open_run

    with _plain_errors():
        answer = open_run(run).sql(sql)
        if json:
            print(answer.to_json(orient="records"))
        else:
            print(answer.to_string(index=False))


@app.command()
def compact(run: Annotated[Path, typer.Argument(help="A run's folder.")]) -> None:
    """Make the files of a run few and small: one that was killed, or an old one."""
    from dynoscope.sealing import compact as seal

    with _plain_errors():
        done = seal(run)
        for problem in done.problems:
            print(f"dynoscope: {problem}; left as it is", file=sys.stderr)
        files, size = done.files, [count / 1e6 for count in done.size]
        print(
            f"dynoscope: {files[0]} files of {size[0]:.1f} MB are now {files[1]} of "
            f"{size[1]:.1f} MB"
        )


@app.command()
def demo(
    runs: Annotated[Path, typer.Option(help="Where to write the runs.")] = Path(
        "runs/demo"
    ),
    port: Port = 8050,
    host: Host = "127.0.0.1",
    serve: Annotated[bool, typer.Option(help="Serve until Ctrl-C.")] = True,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Train a small network on real images, twice, and watch it."""
    from dynoscope.demo import run_demo

    with _plain_errors():
        run_demo(runs, host=host, port=port, serve=serve, browser=browser)


@app.command()
def predict(
    optimizer: Annotated[
        str, typer.Argument(help="adamw, adam_l2, sgdm, lion, sepnorm, ortsepnorm ...")
    ],
    shape: Annotated[str, typer.Option(help="Shape of the weight: 256,128,3,3.")],
    lr: Annotated[float, typer.Option(help="Highest learning rate.")],
    weight_decay: Annotated[float, typer.Option(help="Weight decay.")],
    betas: Annotated[str | None, typer.Option(help="beta1,beta2.")] = None,
    momentum: Annotated[float | None, typer.Option(help="SGD's momentum.")] = None,
    effective_grad_sq: Annotated[
        float | None,
        typer.Option(help="Mean of ||g||^2 ||w||^2; sgdm, adam_l2 and normgd need it."),
    ] = None,
    start_weight_norm: Annotated[
        float | None, typer.Option(help="Norm at the start; torch's default if not.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Length of the training.")] = 10_000,
    warmup: Annotated[int, typer.Option(help="Steps of warmup.")] = 0,
    schedule: Annotated[
        str, typer.Option(help="constant, cosine or linear.")
    ] = "constant",
    to: Annotated[
        str | None, typer.Option(help="Keep the rotation with this optimizer.")
    ] = None,
    to_betas: Annotated[str | None, typer.Option(help="Its beta1,beta2.")] = None,
    to_momentum: Annotated[float | None, typer.Option(help="Its momentum.")] = None,
    batch_factor: Annotated[
        float | None, typer.Option(help="Keep the rotation at a batch so much larger.")
    ] = None,
    keep: Annotated[
        str, typer.Option(help="Besides the rotation: weight_norm or update_rms.")
    ] = "weight_norm",
    html: Annotated[
        Path | None, typer.Option(help="Write a page with plots to this file.")
    ] = None,
) -> None:
    """Say where a layer will settle, and the way there; or what to use instead."""
    from dynoscope.calculator import command

    with _plain_errors():
        shown = command.run(
            optimizer,
            {
                "shape": command.numbers("shape", shape, int),
                "lr": lr,
                "weight_decay": weight_decay,
                "betas": command.numbers("betas", betas),
                "momentum": momentum,
                "effective_grad_sq": effective_grad_sq,
                "start_weight_norm": start_weight_norm,
                "steps": steps,
                "warmup": warmup,
                "schedule": schedule,
            },
            to=to,
            batch_factor=batch_factor,
            keep=keep,
            other={
                "betas": command.numbers("to-betas", to_betas),
                "momentum": to_momentum,
            },
        )
        if html is not None:
            from dynoscope.dashboard.prediction import write_prediction

            write_prediction(shown, html)
            print(f"dynoscope: wrote {html}", file=sys.stderr)


def main() -> None:
    """Entry point of the `dynoscope` command."""
    app()
