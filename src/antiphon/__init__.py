"""Real-time chat for Python over the Pusher protocol."""

from ._version import __version__

__all__ = ["__version__"]
