"""From a named configuration to a stored run, and from a run to its records: data flow in one direction."""
