"""The callback for Lightning, imported as `lightning`."""

from dynoscope.hooks.lightning_hooks import LightningHooks

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError as error:
    raise ImportError(
        'dynoscope.hooks.lightning needs lightning: pip install "dynoscope[lightning]"'
    ) from error

__all__ = ["DynoscopeCallback"]


class DynoscopeCallback(LightningHooks, Callback):
    """Watches what a Lightning Trainer fits; see `LightningHooks`."""
