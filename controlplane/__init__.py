"""The control plane: it turns an operator's configuration into what Envoy and the two services are told."""

__version__ = "0.1.0"
