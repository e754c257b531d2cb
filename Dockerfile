# syntax=docker/dockerfile:1
# msdyn for a machine with an NVIDIA GPU (docs/questions.md has the commands). The base has nvcc, of
# the CUDA release of the torch that constraints.txt pins: gsplat compiles its kernels for the GPU
# that it finds, on first use, and keeps them in /cache.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04

# Versions follow the base image, which is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        build-essential libgl1 libgomp1 libusb-1.0-0 python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/msdyn/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/msdyn

# torch and what it brings first: a change of msdyn does not fetch these again.
COPY constraints.txt /src/
RUN pip install -c /src/constraints.txt torch

COPY setup.py pyproject.toml README.md LICENSE /src/
COPY msdyn /src/msdyn
COPY preprocess /src/preprocess
RUN pip install -c /src/constraints.txt "/src[preprocess,masks,robots,4dgs,spz,usd,sim,rerun]" \
    && rm -rf /src

# Nobody needs to be root. Kernels, weights and settings go to /cache, which any user may write to,
# so that `docker run --user` works; a volume there keeps them.
ENV HOME=/cache \
    XDG_CACHE_HOME=/cache \
    NUMBA_CACHE_DIR=/cache/numba \
    TORCH_EXTENSIONS_DIR=/cache/torch_extensions
RUN mkdir -p /cache /data && chmod 1777 /cache && chown 1000:1000 /data
USER 1000
VOLUME /cache
WORKDIR /data
CMD ["msdyn-demo", "--quick", "--out", "/data/demo"]
