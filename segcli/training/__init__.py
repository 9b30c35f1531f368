"""Training: one loop on one screen."""
