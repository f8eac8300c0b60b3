"""One folder for each backend of Triton, with all that is true of it alone."""
