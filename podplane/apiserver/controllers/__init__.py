"""The controller manager and the scheduler: what follows from what users want, decided anew whenever something changed."""
