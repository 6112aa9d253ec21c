"""Who is primary of what, at which epoch, and on which nodes. Pure.

With one node (`standalone`) there is nobody to elect and nothing to move; what remains is to
grant each shard a new epoch at every start, so that positions of an earlier life are told apart.
A cluster has a metadata log (`log`), the state it makes (`state`) and a controller
(`controller`) that decides what is appended to it.
"""
