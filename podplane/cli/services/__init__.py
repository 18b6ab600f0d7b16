"""`podplane services`: what each Service is, where its connections go, and what is wrong with it."""
