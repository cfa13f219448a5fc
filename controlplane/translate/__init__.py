"""Configuration in, Envoy's resources and the services' policies out: pure, and the same bytes for the same input."""
