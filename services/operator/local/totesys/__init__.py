"""totesys, simulated: the wholesaler's database and the application that writes to it, at any scale and from a seed."""
