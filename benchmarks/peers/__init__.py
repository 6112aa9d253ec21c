"""The registries ss-govern is measured against, each with a load generator of its own."""
