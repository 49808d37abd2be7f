# bdclean with PyTorch for CPUs (the default) or for CUDA:
#   docker build -t bdclean .
#   docker build --build-arg TORCH=cu130 -t bdclean:cuda .
#   docker run --rm -v "$PWD:/work" bdclean scan --ckpt suspect.ckpt
ARG PYTHON=3.12
FROM python:${PYTHON}-slim
# Name of a folder of PyTorch's wheels: cpu, or a version of CUDA such as cu130.
ARG TORCH=cpu
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/${TORCH}
COPY pyproject.toml setup.cfg README.md LICENSE /src/
COPY bdclean /src/bdclean
COPY configs /opt/bdclean/configs
RUN pip install --no-cache-dir "/src[hf,onnx]" && rm -r /src
# Files belong to the caller, and nothing runs as root.
RUN useradd --create-home bdclean && mkdir /work && chown bdclean /work
USER bdclean
WORKDIR /work
ENTRYPOINT ["bdclean"]
