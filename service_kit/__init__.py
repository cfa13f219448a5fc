"""What the authz and rate-limit services share: transport, xDS client, process, files, logs. A leaf package."""
