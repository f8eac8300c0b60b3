"""A server: started, asked, measured; the common part of config.pbtxt."""
