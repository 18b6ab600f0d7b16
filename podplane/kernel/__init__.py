"""The only door to the kernel: netlink, network namespaces, sysctls and processes, each with a fake."""
