"""Building the container images."""
