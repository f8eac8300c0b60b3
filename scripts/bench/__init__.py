"""Verdict's own speed and memory."""
