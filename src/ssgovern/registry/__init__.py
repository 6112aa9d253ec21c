"""The meaning of a shard's log: services, instances, sessions, subscriptions. Pure."""
