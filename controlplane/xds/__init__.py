"""The xDS server: what each node was told, what it said to that, and nothing about what it means."""
