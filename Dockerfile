# The image of Offboard: one static program, run by a user that is not root. With BuildKit, which current versions of
# Docker, Podman and nerdctl have or understand:
#
#   docker build --build-arg VERSION=1.2.3 --tag registry.example/offboard:1.2.3 .
#   docker buildx build --platform linux/amd64,linux/arm64 …

# The compiler runs on the machine that builds, whatever it builds for.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
# The modules are a layer of their own, which a change of the code leaves as it is.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -buildvcs=false -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/offboard ./cmd/offboard

FROM gcr.io/distroless/static:nonroot
ARG VERSION=dev
LABEL org.opencontainers.image.title="Offboard" \
      org.opencontainers.image.description="Turns items of a queue into Jobs that run to completion" \
      org.opencontainers.image.source="https://github.com/offboard-dev/offboard" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /out/offboard /offboard
# By number, since Kubernetes cannot tell from a name that it is not root.
USER 65532:65532
ENTRYPOINT ["/offboard"]
