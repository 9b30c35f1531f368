"""COCO metrics for boxes and masks."""
