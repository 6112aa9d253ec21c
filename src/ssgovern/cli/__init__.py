"""The command `ss-govern`: tables for people, JSON for programs, nothing that the SDK cannot do."""
