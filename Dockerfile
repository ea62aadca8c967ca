# The app in a container. On this computer only:
#
#   docker build --tag quantstore .
#   docker run --rm --init --publish 127.0.0.1:8501:8501 --volume quantstore:/data quantstore
#
# docs/container.md has the rest.

ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
WORKDIR /source
RUN python -m venv /opt/quantstore
COPY pyproject.toml setup.py README.md LICENSE ./
COPY quantstore quantstore
RUN /opt/quantstore/bin/pip install --no-cache-dir .

FROM python:${PYTHON}-slim
RUN useradd --uid 1000 --create-home quantstore \
    && install --directory --owner quantstore --group quantstore /data
COPY --from=build /opt/quantstore /opt/quantstore
ENV PATH=/opt/quantstore/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    QUANTSTORE_DB=/data/quantstore.duckdb
USER quantstore
WORKDIR /data
VOLUME /data
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
ENTRYPOINT ["quantstore"]
# Every address, of the container alone: what reaches it is what --publish lets through. The app
# then takes no paths of the computer it runs on.
CMD ["app", "--no-browser", "--port", "8501", "--address", "0.0.0.0"]
