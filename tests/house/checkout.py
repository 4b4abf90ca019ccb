"""What git knows of this checkout."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def git(*arguments: str) -> str:
    """What a git command prints. The test is skipped where there is no git, or this is a folder without its history."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("git: not installed (apt install git)")
    if done.returncode:
        pytest.skip("git: this folder is not a checkout")
    return done.stdout
