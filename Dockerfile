# docker build -t hhh-gateway .    embedded and remote models, on the CPU, no torch (the target `slim`)
# docker build -t hhh-gateway:full --target full --build-arg TORCH="torch==2.13.0 --index-url INDEX" .
#                                  with torch, for `upstream.model`; INDEX: where PyTorch publishes the build you want
FROM python:3.11-slim AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
WORKDIR /app

FROM base AS build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY gateway gateway
COPY classifiers classifiers
COPY finetune finetune
COPY rails rails
RUN python -m venv /venv && /venv/bin/pip install -c constraints.txt '.[redis,postgres]'

FROM build AS build-full
ARG TORCH="torch==2.13.0"
RUN /venv/bin/pip install ${TORCH} && /venv/bin/pip install -c constraints.txt '.[local]'

FROM base AS runtime
RUN useradd --uid 10001 --create-home hhh && install -d -o hhh -g hhh /data
COPY rails /app/rails
USER 10001
ENV PATH=/venv/bin:$PATH HHH_AUDIT__URL=sqlite+aiosqlite:////data/hhh-audit.db
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["hhh"]
# Without client keys the gateway binds to loopback only, inside the container too: set HHH_CLIENT_KEYS_ENV.
CMD ["serve"]

FROM runtime AS full
COPY --from=build-full /venv /venv

FROM runtime AS slim
COPY --from=build /venv /venv
