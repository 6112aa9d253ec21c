"""Raft among the candidates, for the metadata of the cluster. Pure."""
