"""The samples of a case, batch by batch, and which part of them does what."""
