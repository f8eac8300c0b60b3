"""Gates, the choice, publishing, promoting, and what is in production."""
