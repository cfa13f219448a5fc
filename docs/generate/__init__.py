"""The pages under docs/reference, made from what the code itself says. Not in the wheel."""
