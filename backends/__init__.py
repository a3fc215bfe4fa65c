"""Where programs go: one folder per target, every folder shaped alike, found by entry point."""
