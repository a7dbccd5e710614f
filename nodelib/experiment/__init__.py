"""From a named configuration to a stored run, and from a run to its records: the data flow, in one direction.
"""
