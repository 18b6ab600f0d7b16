"""Builds podplane's image of what this machine has: no registry, no container engine, no root is needed.

    layer 1   the interpreter that runs this, its standard library, the shared libraries that both need, and podplane's dependencies
    layer 2   podplane, with the CNI plugin

    .venv/bin/python -m tools.image podplane.tar
    ctr --namespace k8s.io images import podplane.tar        # or: podman load --input podplane.tar

In the image, as in that of the Containerfile, podplane is in a virtual environment, /opt/podplane. There is no shell. The same files
give the same archive, byte by byte.
"""
