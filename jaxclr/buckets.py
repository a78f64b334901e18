"""Clients of buckets, gs:// and s3://, and their errors as sentences."""

import contextlib
import functools
import logging
import sys
from collections.abc import Iterator
from typing import Any

from jaxclr.errors import UserError, cut, reason
from jaxclr.paths import Path, in_bucket


def client(path: Path | str) -> Any:
    """The file system of a URL, which repeats requests that fail for a passing reason."""
    import fsspec

    _listen()
    return fsspec.filesystem({"gs": "gcs", "s3": "s3"}[_scheme(path)])


@contextlib.contextmanager
def reaching(path: Path | str) -> Iterator[None]:
    """Turns errors of a bucket into UserErrors that say what to do; other paths' are left alone."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # clients raise their own, of several libraries
        if not in_bucket(path):
            raise
        raise UserError(_sentence(path, error)) from error


@functools.cache
def check_bucket(bucket: str) -> None:
    """Raises FileNotFoundError if a bucket does not exist: "not there" may mean that too."""
    client(bucket).ls(bucket)


def bucket_of(path: Path | str) -> str:
    """The URL of the bucket of a URL."""
    return "/".join(str(path).split("/")[:3])


def _sentence(path: Path | str, error: Exception) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = str(getattr(error, "code", ""))
    text = f"{type(error).__name__} {error} {error.__cause__ or ''}"
    bucket = bucket_of(path)
    logins = {
        "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
        "s3": "run `aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    }
    if (
        kinds & {"NoCredentialsError", "PartialCredentialsError", "GoogleAuthError"}
        or status == "401"
        or "InvalidAccessKeyId" in text
        or "SignatureDoesNotMatch" in text
    ):
        login = logins[_scheme(path)]
        return f"{bucket} needs credentials, which are missing or not valid: {login}."
    if "PermissionError" in kinds or status == "403" or "Forbidden" in text:
        return (
            f"These credentials do not permit the use of {path}. Ask the owner of {bucket} for the "
            "permission to list and read objects and, for runs, to write and delete them."
        )
    if "FileNotFoundError" in kinds or status == "404":
        return f"The bucket {bucket} does not exist: create it, or give another."
    return (
        f"{bucket} cannot be reached, also after retries: {reason(error)}. Run the same command "
        "again later."
    )


def _scheme(path: Path | str) -> str:
    return str(path).partition("://")[0]


class _Retries(logging.Filter):
    """Reports the first retry of this process; drops what clients log and also raise."""

    said = False

    def filter(self, record: logging.LogRecord) -> bool:
        words = ("retrying after", "Retryable error", "etry needed")
        if not _Retries.said and any(some in str(record.msg) for some in words):
            _Retries.said = True
            line = cut(record.getMessage().strip().splitlines()[0], 200)
            print(f"A request to a bucket failed and is repeated: {line}", file=sys.stderr)
        return record.levelno == logging.WARNING


@functools.cache
def _listen() -> None:
    for name in ("gcsfs", "s3fs", "botocore.retryhandler", "aiobotocore.retryhandler"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG)  # clients report retries as debug messages
        logger.addFilter(_Retries())
    logging.getLogger("gcsfs.credentials").setLevel(logging.WARNING)  # not as its parent
