"""A node: its drivers, their assembly, and its life from recovery to stop."""
