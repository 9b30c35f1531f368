"""Instance segmentation from the command line."""

from segcli.version import __version__ as __version__
