"""Serves one version of one model, as backends/CONTRACT.md says. The file to edit is predict.py."""

__version__ = "0.1.0"
