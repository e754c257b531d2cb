"""Foundation models as backends, one adapter a file. Nothing here is imported before it is used."""
