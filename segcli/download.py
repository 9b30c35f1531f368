"""Fetching published files: https only, hash checked, resumable, whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from segcli.console import progress, say
from segcli.errors import ModelError, UsageError
from segcli.files import fsync_folder, turn, write_bytes

_CHUNK = 1 << 20
_TIMEOUT_S = 30
_RANGE_NOT_SATISFIABLE = 416
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirects to allowed addresses only."""

    def redirect_request(  # type: ignore[no-untyped-def]
        self, req, fp, code, msg, headers, newurl
    ) -> urllib.request.Request | None:
        try:
            check_address(newurl)
        except UsageError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_address(address: str) -> None:
    """Refuse what is neither https nor this machine itself.

    Raises:
        UsageError: the address is not allowed.
    """
    parts = urlsplit(address)
    local = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if parts.scheme != "https" and not local:
        raise UsageError(f"{address}: only https addresses are fetched")


def fetch(address: str, target: Path, *, hash_prefix: str) -> Path:
    """Download a file to `target`, unless it is there; of several processes that want it one downloads.

    A partial file is gone on with only where the server's ETag is still the same; a file whose SHA-256 does not begin
    with `hash_prefix` is deleted.

    Raises:
        ModelError: no network, the server refuses, or the hash differs.
    """
    if target.exists():
        return target
    check_address(address)
    waiting = f"waiting for another segcli process that downloads {target.name}"
    try:
        with turn(target.with_name(target.name + ".lock"), waiting):
            if not target.exists():
                _fetch(address, target, hash_prefix)
    except (http.client.HTTPException, OSError) as error:  # all of urllib's are OSErrors
        reason = getattr(error, "reason", None) or error
        raise ModelError(
            f"{address}: cannot be downloaded ({reason}); connect to the network and run again, "
            f"or put the file at {target}"
        ) from error
    return target


def _fetch(address: str, target: Path, hash_prefix: str) -> None:
    partial = target.with_name(target.name + ".part")
    _download(address, partial)
    _check_hash(partial, hash_prefix, address)
    partial.replace(target)
    _etag_file(partial).unlink(missing_ok=True)
    fsync_folder(target.parent)


def _download(address: str, partial: Path) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    known = _etag_file(partial)
    headers = {"User-Agent": "segcli"}
    if done and known.exists():
        headers |= {"Range": f"bytes={done}-", "If-Range": known.read_text("ascii")}
    try:
        _receive(urllib.request.Request(address, headers=headers), partial, done)
    except urllib.error.HTTPError as error:
        error.close()  # it is the answer too, and holds the connection
        if error.code != _RANGE_NOT_SATISFIABLE or "Range" not in headers:
            raise
        # there is nothing after what we have, though it was never found whole: begin anew
        partial.unlink()
        known.unlink()
        _download(address, partial)


def _receive(request: urllib.request.Request, partial: Path, done: int) -> None:
    """Put what the server answers into `partial`: behind its `done` bytes, or anew, as the server says."""
    known = _etag_file(partial)
    opener = urllib.request.build_opener(_NoDowngrade)
    with opener.open(request, timeout=_TIMEOUT_S) as answer:
        resumed = answer.status == 206
        length = answer.headers.get("Content-Length")
        total = int(length) + (done if resumed else 0) if length else 0
        say(f"downloading {request.full_url}" + (f" ({total / 1e6:.0f} MB)" if total else ""))
        with partial.open("ab" if resumed else "wb") as stream:
            # only now, when nothing of another version is left in the file
            _remember_etag(known, answer.headers.get("ETag"))
            _copy(answer, stream, total, done if resumed else 0)
    if total and partial.stat().st_size != total:
        raise ConnectionError(f"{partial.stat().st_size} of {total} bytes arrived")


def _copy(source: IO[bytes], stream: IO[bytes], total: int, done: int) -> None:
    with progress(total, "download", "B") as bar:
        bar.update(done)
        while chunk := source.read(_CHUNK):
            stream.write(chunk)
            bar.update(len(chunk))


def _etag_file(partial: Path) -> Path:
    return partial.with_name(partial.name + ".etag")


def _remember_etag(file: Path, etag: str | None) -> None:
    """A weak ETag says nothing about bytes, so only strong ones are kept."""
    if etag and not etag.startswith("W/") and etag.isascii():
        write_bytes(file, etag.encode("ascii"), fsync=False)
    else:
        file.unlink(missing_ok=True)


def _check_hash(partial: Path, hash_prefix: str, address: str) -> None:
    with partial.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if not found.startswith(hash_prefix):
        partial.unlink()
        _etag_file(partial).unlink(missing_ok=True)
        raise ModelError(
            f"{address}: SHA-256 begins with {found[:8]}, expected {hash_prefix}; "
            "the file was deleted, run again to fetch it anew"
        )
