"""One shard's log, as its primary and its replicas keep it. Pure."""
