"""Many machines: what a server and a node are made of, on Flower."""
