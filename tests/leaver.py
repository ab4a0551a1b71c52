"""Programs that train, and end in many ways; each is forked off before it trains."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import torch

import dynoscope
from tests.networks import OPTIMIZERS, MixedNet, train

FOREVER = 1_000_000


def tell(_: Any) -> None:
    print("step", flush=True)


def endless(run: str) -> None:
    """Train until a signal comes."""
    model = MixedNet()
    optimizer = OPTIMIZERS["lion"](model)
    with dynoscope.watch(model, optimizer, run=run, every=1):
        train(model, optimizer, FOREVER, tell)


def handled(run: str) -> None:
    """SIGTERM becomes an exit, as job schedulers' wrappers do it."""

    def leave(*_: object) -> NoReturn:
        sys.exit(143)

    signal.signal(signal.SIGTERM, leave)
    endless(run)


def leaving(way: Callable[[], Any]) -> Callable[[str], None]:
    def leave(run: str) -> None:
        model = MixedNet()
        optimizer = OPTIMIZERS["lion"](model)
        with dynoscope.watch(model, optimizer, run=run):
            train(model, optimizer, 3, tell)
            way()

    return leave


def at_once() -> NoReturn:
    time.sleep(1)
    os._exit(0)


def never_left(run: str) -> None:
    """A watch that is entered by hand, and kept until the interpreter is gone."""
    global kept
    model = MixedNet()
    optimizer = OPTIMIZERS["lion"](model)
    kept = dynoscope.watch(model, optimizer, run=run)
    kept.__enter__()
    train(model, optimizer, 3, tell)


kept: Any = None


def in_thread(run: str) -> None:
    """A daemon thread trains on while the program ends."""
    threading.Thread(target=endless, args=(run,), daemon=True).start()
    time.sleep(3)


def exit_in_thread(run: str) -> None:
    thread = threading.Thread(target=leaving(sys.exit), args=(run,))
    thread.start()
    thread.join()


WAYS: dict[str, Callable[[str], None]] = {
    "terminated": endless,
    "interrupted": endless,
    "handled": handled,
    "exit": leaving(sys.exit),
    "exit with an error": leaving(lambda: sys.exit("no more data")),
    "at once": leaving(at_once),
    "never left": never_left,
    "in a thread": in_thread,
    "exit in a thread": exit_in_thread,
}

SIGNALS = {
    "terminated": signal.SIGTERM,
    "interrupted": signal.SIGINT,
    "handled": signal.SIGTERM,
}


def parent(way: str, run: str) -> bool:
    """Fork a program off and wait for its end; in the child, be that program."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writer, sys.stdout.fileno())
        WAYS[way](run)
        return False
    os.close(writer)
    with os.fdopen(reader) as steps:
        for _ in range(3):
            assert steps.readline() == "step\n"
        if way in SIGNALS:
            os.kill(child, SIGNALS[way])
        steps.read()
    os.waitpid(child, 0)
    return True


if __name__ == "__main__":
    torch.set_num_threads(1)
    all(parent(way, f"{sys.argv[1]}/{way}") for way in WAYS)
