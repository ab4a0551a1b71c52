"""Numbers that are kept now and read later, on the CPU and without it."""

import threading

import pytest
import torch

from dynoscope.metrics.sums import read_later

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int32]
)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_number_is_what_it_was(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = torch.full(shape, 3, dtype=dtype)
    read = read_later(x)
    x.add_(1)
    assert (read(), read()) == (3.0, 3.0)


def test_a_number_with_a_graph() -> None:
    x = torch.tensor(2.0, requires_grad=True) * 2
    read = read_later(x)
    x.backward()
    assert read() == 4.0


@CUDA
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_number_of_a_stream_that_is_behind(dtype: torch.dtype) -> None:
    """Another thread waits for the stream that computes it, not for its own."""
    stream = torch.cuda.Stream()
    found: list[float] = []
    with torch.cuda.stream(stream):
        x = torch.zeros((), dtype=dtype, device="cuda")
        torch.cuda._sleep(200_000_000)
        x.add_(3)
        torch.cuda.set_sync_debug_mode("error")
        try:
            read = read_later(x)
            x.add_(1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    reader = threading.Thread(target=lambda: found.append(read()))
    reader.start()
    reader.join()
    assert found == [3.0]
