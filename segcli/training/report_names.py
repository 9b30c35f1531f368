"""Names from outside (files, classes, runs) in a report's page."""

from __future__ import annotations

from html import escape

from segcli.console import escape as visible


def shown(name: object) -> str:
    """Safe in HTML, its control characters and undecodable bytes visible; UTF-8 could not hold the latter."""
    return escape(visible(name))
