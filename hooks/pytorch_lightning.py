"""The callback for Lightning, imported as `pytorch_lightning`."""

from dynoscope.hooks.lightning_hooks import LightningHooks

try:
    from pytorch_lightning import Callback
except ModuleNotFoundError as error:
    raise ImportError(
        "dynoscope.hooks.pytorch_lightning needs pytorch_lightning: "
        'pip install "dynoscope[lightning]"'
    ) from error

__all__ = ["DynoscopeCallback"]


class DynoscopeCallback(LightningHooks, Callback):
    """Watches what a Lightning Trainer fits; see `LightningHooks`."""
