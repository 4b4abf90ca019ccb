"""R with the packages of the backend and of the part of the zoo that CI runs."""

import shutil
import subprocess

import pytest

from tests.conftest import require
from tests.contract.backends.languages import R_PACKAGES

KINDS = "MASS e1071 glmnet mgcv nnet randomForest ranger rpart survival"


@pytest.fixture(scope="session")
def has_r() -> None:
    found = shutil.which("Rscript")
    script = f'for (p in strsplit("{R_PACKAGES} {KINDS}", " ")[[1]]) loadNamespace(p)'
    missing = (
        found is None
        or subprocess.run([found, "--vanilla", "-e", script], capture_output=True, check=False).returncode
    )
    require("r", available=not missing, why=f"there is no Rscript with the packages {R_PACKAGES} {KINDS}")
