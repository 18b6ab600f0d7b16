"""The lab's kubelet: pods as network namespaces, containers as processes, and the programs that need no image."""
