"""Colour-filled overlays on pictures and video."""
