"""Who is primary of what, at which epoch. Pure.

With one node there is nobody to elect and nothing to move; what remains is to grant each shard
a new epoch at every start, so that positions of an earlier life are told apart.
"""
