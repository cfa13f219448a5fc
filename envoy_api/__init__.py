"""Envoy's API as Python messages, generated from the pinned Envoy by `mgw dev envoy-api`. Never edit by hand.

Copyright of the protos: the Envoy project authors, Apache License 2.0.
"""
