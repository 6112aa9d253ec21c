"""How the outside speaks to a node."""
