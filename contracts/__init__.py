"""What the services agree on: plain data, no I/O, nothing of ours imported."""
