# The relay, its lab's scripted hosts and its self-test: one image. Debian's Python, nothing else.
FROM debian:12.12-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates iproute2 libunbound8 python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE /usr/src/dane-relay/
COPY relay /usr/src/dane-relay/relay
RUN python3 -m venv /opt/dane-relay \
    && /opt/dane-relay/bin/pip install --no-cache-dir /usr/src/dane-relay \
    && useradd --system --uid 10001 --home-dir /var/lib/dane-relay --shell /usr/sbin/nologin dane-relay \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/dane-relay \
    && install --directory --owner=10001 --group=10001 --mode=0755 /lab
COPY docker/with-addresses /usr/local/bin/with-addresses
ENV PATH=/opt/dane-relay/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONUNBUFFERED=1
USER 10001:10001
ENTRYPOINT ["dane-relay"]
