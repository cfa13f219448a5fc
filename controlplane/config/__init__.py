"""The operator's configuration: its model, its text, its rules, and Envoy's judgement of it."""
