"""The command `mgw`: one file a verb."""
