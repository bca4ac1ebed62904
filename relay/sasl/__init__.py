"""SASL: who logs in where, and the octets of each mechanism (RFC 4422, 4616, 5802, 7628, 7677). Pure."""
