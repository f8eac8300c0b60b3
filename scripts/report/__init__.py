"""How facts become pages and pictures."""
