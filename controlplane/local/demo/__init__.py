"""Demo upstreams: small HTTP servers that echo what they received and can be told to misbehave."""
