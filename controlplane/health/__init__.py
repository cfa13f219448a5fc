"""How the gateway and what is behind it are."""
