"""The client side of the Kubernetes API: messages, transports, list and watch."""
