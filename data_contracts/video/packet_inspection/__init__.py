"""Inspection of packets without decoding them: how many frames a packet shows, and where decoding can start."""
