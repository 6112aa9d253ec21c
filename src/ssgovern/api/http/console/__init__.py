"""The console: pages that show the cluster live and let an operator act on it."""
