"""Breakers: Envoy opens them; when a service may be tried, by how many, and whether it is well, is decided here."""
