"""Published weights in the cache, downloaded where they are not."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from segcli.download import check_address, fetch
from segcli.errors import ModelError, UsageError
from segcli.home import cache_folder
from segcli.published import PublishedWeights


def fetch_weights(weights: PublishedWeights, *, mirror: str | None = None) -> Path:
    """The file of published weights, under SEGCLI_HOME.

    Args:
        weights: which.
        mirror: address under which their publisher's files are kept by the same paths; None = the publisher's own.

    Raises:
        UsageError: an address that is not allowed.
        ModelError: they cannot be fetched.
    """
    if weights.address is None or weights.file_name is None:
        raise ModelError(
            f"{weights.name}: cannot be fetched ({weights.reason}); see {weights.source}"
        )
    return fetch(
        weights.address if mirror is None else mirrored(weights.address, mirror),
        cache_folder("weights") / weights.file_name,
        hash_prefix=weights.hash_prefix,
        hash_kind=weights.hash_kind or "sha256",
    )


def mirrored(address: str, mirror: str) -> str:
    """The same path under another server's address.

    Raises:
        UsageError: the mirror is neither https nor this machine, or holds more than a path.
    """
    check_address(mirror)
    parts = urlsplit(mirror)
    if not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"--mirror {mirror}: expected https://HOST or https://HOST/FOLDER")
    return mirror.rstrip("/") + urlsplit(address).path
