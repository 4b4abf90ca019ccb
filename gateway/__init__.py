"""CHIPS: one address for machine-learning models, whatever language they are written in."""

__version__ = "0.1.0"
