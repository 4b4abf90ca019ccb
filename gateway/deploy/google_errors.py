"""Turn Google Cloud's errors into DeployError. Each has the command that helps."""

import re
from collections.abc import Callable
from typing import TypeVar

from google.api_core import exceptions
from google.auth import exceptions as auth_exceptions

from gateway.deploy.target import DeployError

Result = TypeVar("Result")


def _refused(error: exceptions.GoogleAPICallError, project: str) -> DeployError:
    message = str(error.message)
    disabled = re.search(r"(\w+\.googleapis\.com)", message)
    if disabled and ("has not been used" in message or "disabled" in message):
        return DeployError(
            f"the API {disabled[1]} is not enabled in {project}",
            hint=f"gcloud services enable {disabled[1]} --project {project}",
            code=78,
        )
    return DeployError(
        f"no permission in {project}: {message}",
        hint="deploy/README.md lists the roles; is the project right? chips env show",
        code=77,
    )


def call_google(call: Callable[[], Result], project: str) -> Result:
    """Call Google and turn its errors into DeployError.

    The result is that of `call`; errors that our caller handles itself stay as they are.
    """
    try:
        return call()
    except (exceptions.NotFound, exceptions.Conflict):
        raise
    except auth_exceptions.GoogleAuthError as error:
        raise DeployError(
            f"no credentials for Google Cloud: {error}",
            hint="gcloud auth application-default login",
            code=77,
        ) from error
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        raise _refused(error, project) from error
    except exceptions.TooManyRequests as error:
        raise DeployError(
            f"Google Cloud refused for its quota: {error.message}", hint="wait, or ask for more"
        ) from error
    except exceptions.BadRequest as error:
        raise DeployError(f"Google Cloud does not take it: {error.message}", code=65) from error
    except (exceptions.GoogleAPICallError, exceptions.RetryError) as error:
        raise DeployError(
            f"Google Cloud does not answer: {error}", hint="run the same command again"
        ) from error
