# docker build -t neuroformer .                              CPU
# docker build -t neuroformer --build-arg TORCH=cu130 .      NVIDIA GPUs; run with --gpus all
# docker run --rm -it -v "$PWD:/work" neuroformer demo
FROM python:3.12-slim
ARG TORCH=cpu
WORKDIR /src
COPY pyproject.toml lock.txt README.md LICENSE ./
COPY neuroformer neuroformer
COPY kernels kernels
RUN pip install --no-cache-dir torch --constraint lock.txt --index-url "https://download.pytorch.org/whl/${TORCH}" \
 && pip install --no-cache-dir --constraint lock.txt '.[formats]'
WORKDIR /work
ENTRYPOINT ["neuroformer"]
