"""Automatic rollouts: fleet-wide counts, the verdict on a new version, and the controller that acts on it."""
