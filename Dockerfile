# CPU image: docker build -t lightning-vfe . && docker run --rm -v "$PWD/runs:/work/runs" lightning-vfe fit
# GPU image: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t lightning-vfe .
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

WORKDIR /work
ENTRYPOINT ["lightning-vfe"]
CMD ["--help"]
