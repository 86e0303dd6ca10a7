"""The Pusher protocol 7, without any I/O: frames, names, signatures, and both ends' machines.

Each module is useful by itself and names its parts in `__all__`; nothing is re-exported here.
"""
