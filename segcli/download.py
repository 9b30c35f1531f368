"""Fetching published files: https only, hash checked, resumable, whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from segcli.console import progress, say
from segcli.errors import ModelError, UsageError
from segcli.files import NO_ROOM, fsync_folder, turn, write_bytes

_CHUNK = 1 << 20
_TIMEOUT_S = 30
_RANGE_NOT_SATISFIABLE = 416
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_OFFLINE = "SEGCLI_OFFLINE"


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


def is_offline() -> bool:
    """Whether the user forbids downloads: SEGCLI_OFFLINE is set, and not to 0, no or false."""
    return os.environ.get(_OFFLINE, "").strip().lower() not in {"", "0", "no", "false"}


def fetch(
    address: str, target: Path, *, hash_prefix: str | None, hash_kind: str = "sha256"
) -> Path:
    """Download a file to `target`, unless it is there; of several processes that want it one downloads.

    A partial file is gone on with only where the server's ETag is still the same; a file whose hash does not begin
    with `hash_prefix` is deleted. Where no SHA-256 is known, that of the first download is kept beside the file, and
    later downloads must have the same.

    Args:
        address: https, or this machine.
        target: its folder exists.
        hash_prefix: first digits of the file's hash; None = unknown.
        hash_kind: of `hash_prefix`: `sha256` or `md5`.

    Raises:
        UsageError: the address is not allowed.
        ModelError: SEGCLI_OFFLINE is set, no network, the server refuses, the disk is full, or the hash differs.
    """
    if target.exists():
        return target
    check_address(address)
    if is_offline():
        raise ModelError(
            f"{address}: not in the cache, and {_OFFLINE} forbids downloads; unset it, or put the file at {target}"
        )
    waiting = f"waiting for another segcli process that downloads {target.name}"
    try:
        with turn(target.with_name(target.name + ".lock"), waiting):
            if not target.exists():
                _fetch(address, target, hash_prefix, hash_kind)
    # all of urllib's are OSErrors; a header of the answer that makes no sense is a ValueError
    except (http.client.HTTPException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise ModelError(
                f"{target.parent}: no space left for {target.name}; make room, or set SEGCLI_HOME to another disk, "
                "and run again"
            ) from error
        reason = getattr(error, "reason", None) or error
        raise ModelError(
            f"{address}: cannot be downloaded ({reason}); connect to the network and run again, "
            f"or put the file at {target}"
        ) from error
    return target


def _fetch(address: str, target: Path, hash_prefix: str | None, hash_kind: str) -> None:
    partial = target.with_name(target.name + ".part")
    _download(address, partial)
    found = _hashes(partial)
    if hash_prefix is not None:
        _check_hash(partial, hash_kind, found[hash_kind], hash_prefix, address)
    if hash_prefix is None or hash_kind != "sha256":
        _check_pin(partial, _pin_file(target), found["sha256"], address)
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
    if etag and not etag.startswith("W/") and etag.isascii() and etag.isprintable():
        write_bytes(file, etag.encode("ascii"), fsync=False)
    else:
        file.unlink(missing_ok=True)


def _pin_file(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _hashes(partial: Path) -> dict[str, str]:
    """Digests by kind, of one reading."""
    digests = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with partial.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            for digest in digests.values():
                digest.update(chunk)
    return {kind: digest.hexdigest() for kind, digest in digests.items()}


def _check_hash(partial: Path, kind: str, found: str, prefix: str, address: str) -> None:
    if not found.startswith(prefix):
        _delete(partial)
        name = "SHA-256" if kind == "sha256" else "MD5"
        raise ModelError(
            f"{address}: {name} begins with {found[:8]}, expected {prefix}; "
            "the file was deleted, run again to fetch it anew"
        )


def _check_pin(partial: Path, pin: Path, found: str, address: str) -> None:
    """Keep the hash of the first download; later ones must have it."""
    if not pin.exists():
        write_bytes(pin, (found + "\n").encode("ascii"))
        say(f"{address}: SHA-256 {found}, pinned for later downloads in {pin}")
    elif (pinned := pin.read_text("ascii", errors="replace").strip()) != found:
        _delete(partial)
        raise ModelError(
            f"{address}: SHA-256 is {found}, expected {pinned} as at the first download; "
            f"the file was deleted; delete {pin} if you trust the new one"
        )


def _delete(partial: Path) -> None:
    partial.unlink()
    _etag_file(partial).unlink(missing_ok=True)
