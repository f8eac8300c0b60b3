"""What kind of model a case brings: one folder for each, with the reference that it is judged by."""
