"""HTTP: health, metrics and the open API, for people, scripts and monitoring."""
