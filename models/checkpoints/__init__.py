"""Reading and writing weights: one file per family. Nothing here ever runs code from a file."""
