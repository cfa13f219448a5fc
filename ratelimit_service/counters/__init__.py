"""Where what was spent is kept."""
