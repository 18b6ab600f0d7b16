"""The embedded Kubernetes API: storage, verbs, watches and admission, free of any HTTP library, and one adapter for HTTP."""
