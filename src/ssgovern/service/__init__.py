"""Use cases of the registry, independent of who asks and how."""
