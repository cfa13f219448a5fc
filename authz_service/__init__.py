"""Who is calling, and may they: Envoy's external authorization service."""
