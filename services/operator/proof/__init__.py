"""The proof: what the star should hold is computed from the source in SQL, and compared with what it does hold.

Shares nothing with the remodelling but the contract and the ISO 4217 table.
"""
