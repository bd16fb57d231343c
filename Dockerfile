# docker build -t vibebalancer .
# docker run -p 8080:8080 -v $PWD/vibebalancer.yaml:/etc/vibebalancer/vibebalancer.yaml:ro vibebalancer --workers 4

FROM debian:trixie-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      cmake gcc libc6-dev ninja-build pkg-config \
      libjansson-dev libllhttp-dev libuv1-dev libyaml-dev \
 && rm -rf /var/lib/apt/lists/*
# Ninja builds in parallel without being told the number of CPUs.
ENV CMAKE_GENERATOR=Ninja
WORKDIR /src
# What the programs are made of and nothing else: a change to a test or a page compiles nothing.
COPY CMakeLists.txt ./
COPY include include/
COPY lib lib/
COPY cmd cmd/
RUN cmake -S . -B build -DCMAKE_BUILD_TYPE=Release && cmake --build build

FROM debian:trixie-slim
LABEL org.opencontainers.image.title="VibeBalancer" \
      org.opencontainers.image.description="HTTP load balancer: one YAML file, one container, one command" \
      org.opencontainers.image.licenses="MIT"
# /run is open to every uid, as /tmp is: the control socket lives there, and a cluster may choose another uid than ours.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libjansson4 libllhttp9.2 libuv1t64 libyaml-0-2 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache \
      /var/lib/dpkg/*-old /var/log/apt /var/log/dpkg.log \
 && groupadd --gid 10001 vibebalancer \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin vibebalancer \
 && chmod 1777 /run
COPY --from=build /src/build/vibebalancer /src/build/vbctl /usr/local/bin/
COPY vibebalancer.yaml /etc/vibebalancer/vibebalancer.yaml

# ./vibebalancer.yaml would win over the file in /etc; there is none in /.
WORKDIR /
# A number, so that Kubernetes can see that runAsNonRoot holds.
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["vbctl", "status"]
ENTRYPOINT ["vibebalancer"]
