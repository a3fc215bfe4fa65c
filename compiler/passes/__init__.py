"""Passes, a file each, named by its verb."""
