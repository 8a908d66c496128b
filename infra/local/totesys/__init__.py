"""totesys, simulated: the wholesaler's application and its database, at any scale and from a seed."""
