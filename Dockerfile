# Two stages: build and test with the project's own scripts, then a slim image with the programs.
#
#   docker build -t sluice .                      (runs the tests; --build-arg TESTS=no skips them)
#   docker run --read-only --tmpfs /var/lib/sluice -p 127.0.0.1:8080:8080 \
#     -v ./sluice.yaml:/etc/sluice/sluice.yaml:ro sluice
#
# Inside a container the gateway must listen on 0.0.0.0, which needs keys in the configuration.
FROM debian:bookworm AS build
WORKDIR /src
COPY . .
ARG TESTS=yes
RUN if [ "$TESTS" = yes ]; then scripts/test; else scripts/install_packages build && \
      cmake --preset release -DSLUICE_TESTS=OFF && cmake --build --preset release; fi
RUN cmake --install build/release --prefix /opt/sluice --strip

FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends \
      libssl3 libsimdjson14 libsentencepiece0 libyaml-cpp0.7 libspdlog1.10 libprometheus-cpp-core1.0 curl && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --system --home-dir /var/lib/sluice --create-home sluice
COPY --from=build /opt/sluice /opt/sluice
USER sluice
ENV PATH=/opt/sluice/bin:$PATH
VOLUME /var/lib/sluice
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD curl -fsS http://127.0.0.1:8080/ready || exit 1
ENTRYPOINT ["sluice", "serve", "--state-dir", "/var/lib/sluice"]
CMD ["--config", "/etc/sluice/sluice.yaml"]
