# The broker in a small image: docker build -t pubsub . && docker run --rm -p 8000:8000 pubsub

FROM rust:1.95-slim-bookworm AS build
WORKDIR /usr/src/pubsub
COPY . .
RUN cargo build --release --locked --bin pubsub

# The same Debian as above, so that the binary finds the libc it was linked against.
FROM debian:bookworm-slim
RUN useradd --system --no-create-home --shell /usr/sbin/nologin pubsub
COPY --from=build /usr/src/pubsub/target/release/pubsub /usr/local/bin/pubsub
USER pubsub
EXPOSE 8000

# Inside a container loopback is reachable by nobody, so it has to listen on all addresses; and since no
# authentication is configured, protected mode wants to hear that this is meant. The container's network is the wall:
# publish the port to 127.0.0.1 or to a reverse proxy's network, or give your own arguments instead of these.
# The operators' port stays on the container's loopback.
ENTRYPOINT ["pubsub"]
CMD ["--listen", "0.0.0.0:8000", "--insecure-open"]

# No HEALTHCHECK: it would want an HTTP client in the image. Probe GET /healthz on the operators' port
# (--admin 0.0.0.0:8001 on a network of your own).
STOPSIGNAL SIGTERM
