"""The local runner: it starts a whole gateway as plain processes, watches them, and takes them down."""
