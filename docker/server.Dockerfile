# A server as Debian packages it; which one is an argument of the build. Its configuration comes from the lab's volume.
FROM debian:12.12-slim
ARG PACKAGE
RUN apt-get update \
    && printf 'exit 101\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends iproute2 "$PACKAGE" \
    && rm -rf /var/lib/apt/lists/*
COPY docker/with-addresses docker/follow-zones /usr/local/bin/
