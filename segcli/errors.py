"""Errors that a user can act on. The command line prints each as one line and turns it into an exit code.

A message names the thing, what was found, what was expected, and what to do.
"""


class SegcliError(Exception):
    """A failure with a reason; exit code 1."""

    exit_code = 1


class UsageError(SegcliError):
    """The request itself is wrong (flags, paths, settings that do not fit); exit code 2."""

    exit_code = 2


class DataError(SegcliError):
    """A dataset, annotation file or picture cannot be used."""


class ImageError(DataError):
    """One picture cannot be read. Never stops a folder: it becomes a row of `failed.jsonl`."""


class ModelError(SegcliError):
    """A checkpoint or named weights cannot be used."""


class OutputError(SegcliError):
    """An output folder or file cannot be written, is locked, or belongs to something else."""


class TrainingError(SegcliError):
    """Training cannot go on (a loss that is not finite, nothing to train on)."""


class PredictionError(SegcliError):
    """The model failed on a batch, or gave what cannot be written down."""


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt not an Exception, so that nothing swallows it; exit code 143."""
