"""Programs of the servers that `benchmarks.backends.alternatives` measures next to the Python backend, each run in its own environment."""
