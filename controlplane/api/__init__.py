"""The operator's HTTP API under /v1, and the gateway's own health."""
