# Builds the service as one static program and puts nothing else into the image.
#
# The builder has to have Rust (1.95 or later) and a C compiler. Another one can be passed:
#   docker build --build-arg BUILDER_IMAGE=registry.example/rust:1.95 .
ARG BUILDER_IMAGE=rust:1.95-slim-bookworm

FROM ${BUILDER_IMAGE} AS builder
WORKDIR /src
COPY Cargo.toml Cargo.lock openapi.yaml ./
COPY src src
COPY docs/architecture.md docs/architecture.md
# Cargo wants to see what the manifest names, also what is not built here.
COPY benches/engine.rs benches/engine.rs
COPY tests/it/main.rs tests/it/main.rs
COPY tests/memory.rs tests/memory.rs
# With a target named, the flags do not reach build scripts and macros, which cannot be static.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" \
       cargo build --locked --release --bin adtally --target "$target" \
    && mkdir -p /image/data /image/results \
    && mv "target/$target/release/adtally" /image/adtally \
    && rm -rf target

FROM ${BUILDER_IMAGE} AS test
WORKDIR /src
COPY . .
CMD ["cargo", "test", "--locked"]

# It listens for other machines, and so needs a token file (ADTALLY_TOKEN_FILE), or ADTALLY_INSECURE_NO_AUTH=true.
FROM scratch
COPY --from=builder --chown=65532:65532 /image/ /
ENV ADTALLY_LISTEN=0.0.0.0:8080 \
    ADTALLY_DATA_DIR=/data \
    ADTALLY_RESULTS_DIR=/results
USER 65532:65532
EXPOSE 8080
VOLUME ["/data", "/results"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/adtally", "healthcheck"]
ENTRYPOINT ["/adtally"]
CMD ["serve"]
