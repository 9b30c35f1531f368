"""Prediction over pictures: plan, shards, resume, export."""
