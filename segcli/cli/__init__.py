"""The command line: click lives here and nowhere else. One file per command; a command parses, calls, reports."""
