"""The environments of deploy/terraform, for tests of each of them."""

import pytest

# They differ in values only, and production has the most rules.
each_environment = pytest.mark.parametrize(
    "environment",
    [pytest.param("dev", marks=pytest.mark.slow), pytest.param("qa", marks=pytest.mark.slow), "prod"],
)
