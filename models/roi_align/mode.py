"""How the samples of a bin become one value."""

from typing import Literal

Mode = Literal["avg", "max"]
