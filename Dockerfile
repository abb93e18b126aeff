# CPU image: docker build -t lightning-vfe .
# GPU image: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t lightning-vfe .
# Run it:    docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" lightning-vfe fit
#            with --gpus all, and with --ipc=host for several GPUs; runs/ appears in the present folder
# Apptainer: apptainer build lightning-vfe.sif docker-daemon://lightning-vfe:latest
#            apptainer run --nv lightning-vfe.sif fit
FROM python:3.11-slim-bookworm

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# pw.x and its pseudopotentials, for `lightning-vfe label`; gcc compiles the kernels of Triton on a GPU
RUN apt-get update && apt-get install --yes --no-install-recommends \
        quantum-espresso quantum-espresso-data gcc libc6-dev && rm -rf /var/lib/apt/lists/*

WORKDIR /package
COPY pyproject.toml README.md LICENSE ./
COPY lightning_vfe lightning_vfe
COPY configs configs
COPY data data
RUN pip install --no-cache-dir "torch>=2.11,<2.14" --index-url "$TORCH_INDEX" && pip install --no-cache-dir .

# any user may run it, also one without a name or a home: caches go to /tmp
ENV HOME=/tmp USER=vfe MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /work
ENTRYPOINT ["lightning-vfe"]
CMD ["--help"]
