"""Who drives runs: a process of this machine, or a small Job of the cluster."""
