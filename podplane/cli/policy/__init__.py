"""`podplane policy`: who may talk to whom, from the objects of the API alone."""
