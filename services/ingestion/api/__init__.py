"""HTTP APIs as sources: what leads from a request of the contract to the records of a delivery."""
