"""The debug console: what happens in each application on this node, for who knows a password."""

from .console import Console

__all__ = ["Console"]
