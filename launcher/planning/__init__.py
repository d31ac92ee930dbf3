"""How a job becomes a plan: what it leaves open is resolved, each value with its reason."""
