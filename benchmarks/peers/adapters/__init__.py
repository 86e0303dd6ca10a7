"""One file for each client: connects, subscribes, and tells what it sees, one JSON a line.

They run in the environment of the client they drive, so they import nothing of this project but
each other. Each uses its client as the client's own documentation does.
"""
