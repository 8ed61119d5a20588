# One small image for every part and for the cluster's nodes: two static binaries, no shell, no root.
# docker build --build-arg VERSION=1.2.3 -t trunkline:1.2.3 .
FROM golang:1.26 AS build
WORKDIR /src
COPY go.work go.work.sum ./
COPY streams streams
COPY pkg pkg
COPY services services
ARG VERSION=
ENV CGO_ENABLED=0 GOFLAGS=-trimpath
RUN go build -ldflags "-s -w -X main.version=$VERSION" -o /out/trunkline ./services/cmd/trunkline
# The engine that the tests run against, of the version in go.mod.
RUN cd services && go build -ldflags "-s -w" -o /out/nats-server github.com/nats-io/nats-server/v2
RUN mkdir /out/data

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/trunkline /out/nats-server /
COPY configs/cluster/nats.conf configs/cluster/accounts.conf /etc/trunkline/
# A volume takes its owner from here. Nothing else is written: run it with a read-only root file system.
COPY --from=build --chown=65532:65532 /out/data /data
VOLUME /data
ENV TRUNKLINE_DATA=/data TRUNKLINE_HTTP=:8080
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["/trunkline", "health", "http://127.0.0.1:8080/health/live"]
ENTRYPOINT ["/trunkline"]
CMD ["serve"]
