# Two stages: build and test with the project's own scripts, then a slim image with the programs.
#
#   docker build -t sluice .                      (runs the tests; --build-arg TESTS=no skips them)
#   docker run --read-only --tmpfs /var/lib/sluice:uid=900 --cap-drop ALL \
#     --security-opt no-new-privileges -p 127.0.0.1:8080:8080 \
#     -v ./sluice.yaml:/etc/sluice/sluice.yaml:ro sluice
#
# Inside a container the gateway must listen on 0.0.0.0, which needs keys in the configuration.
# Packages are named in scripts/install_packages only.
FROM debian:bookworm AS build
WORKDIR /src
COPY . .
ARG TESTS=yes
RUN if [ "$TESTS" = yes ]; then scripts/test; else scripts/install_packages build && \
      cmake --preset release -DSLUICE_TESTS=OFF && cmake --build --preset release; fi
RUN cmake --install build/release --prefix /opt/sluice --strip

FROM debian:bookworm-slim
COPY scripts/install_packages /tmp/
RUN /tmp/install_packages runtime && rm -rf /var/lib/apt/lists/* /tmp/install_packages && \
    useradd --system --uid 900 --home-dir /var/lib/sluice --create-home sluice
COPY --from=build /opt/sluice /opt/sluice
USER sluice
ENV PATH=/opt/sluice/bin:$PATH
# All that is ever written; the rest of the file system may be read-only.
VOLUME /var/lib/sluice
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD curl -fsS http://127.0.0.1:8080/ready || exit 1
STOPSIGNAL SIGTERM
ENTRYPOINT ["sluice", "serve", "--state-dir", "/var/lib/sluice"]
CMD ["--config", "/etc/sluice/sluice.yaml"]
