"""Everything between the data and the network."""
