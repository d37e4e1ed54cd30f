# The image of one service and of the processes that it starts: docker build --build-arg PACKAGE=hunmin-tuning .
# For machines without a GPU, `--build-arg SYNC="--no-install-package triton"` leaves out a gigabyte.
ARG PYTHON=python:3.11-slim
FROM $PYTHON
ARG PACKAGE=hunmin-tuning
ARG SYNC=""
WORKDIR /app
COPY pyproject.toml uv.lock ./
COPY libs libs
COPY services services
COPY training training
RUN --mount=type=cache,target=/root/.cache python3 -m venv /uv && /uv/bin/pip install --quiet uv \
    && /uv/bin/uv sync --frozen --system-certs --no-dev --no-editable --link-mode copy --python python3 \
        --package $PACKAGE --all-extras $SYNC \
    && rm -rf /uv libs services
ENV PATH=/app/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
