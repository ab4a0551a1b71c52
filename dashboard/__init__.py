"""The live dashboard: draws runs while they are written, and ever after."""

from dynoscope.dashboard.server import Server, serve, start

__all__ = ["Server", "serve", "start"]
