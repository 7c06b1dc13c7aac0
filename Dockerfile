# The device install in a container: the runtime and ONNX Runtime on the processor, no PyTorch.
#
#   docker build -t rillet .
#   docker run --rm --network none --read-only -v "$PWD/models:/models:ro" \
#       rillet generate /models/shakespeare-nano "ROMEO:" --seed 3
#
# Building fetches wheels; running needs no network.
FROM python:3.13-slim AS build
# For the native engine, which setup.py leaves out where there is no compiler.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE constraints.txt MANIFEST.in ./
COPY native/ native/
COPY runtime/ runtime/
COPY train/ train/
COPY export/ export/
COPY integrations/ integrations/
RUN pip install --no-cache-dir --constraint constraints.txt setuptools \
    && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && ! ls /wheels/rillet-*-none-any.whl \
    && pip wheel --no-cache-dir --constraint constraints.txt --wheel-dir /wheels \
        "rillet[cpu] @ file://$(ls /wheels/rillet-*.whl)"

FROM python:3.13-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels "rillet[cpu]" \
    && useradd --create-home --uid 1000 rillet \
    && install --directory --owner rillet /sessions
USER rillet
WORKDIR /home/rillet
ENTRYPOINT ["rillet"]
CMD ["--help"]
