"""Weight files of all families: what is in them, and which conventions they need."""
