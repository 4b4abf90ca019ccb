"""Imported by the fork server alone: see `template`."""

from chips_backend.template import load_once

load_once()
