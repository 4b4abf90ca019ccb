"""Preloaded by multiprocessing's fork server, and imported by nothing else: see `forkserver`."""

from chips_backend.forkserver import load_once

load_once()
