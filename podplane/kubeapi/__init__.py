"""The Kubernetes API from the outside: messages, requests, clients over a direct call or HTTP, watches and caches."""
