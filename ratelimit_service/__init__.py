"""May this caller pass now: Envoy's rate limit service."""
