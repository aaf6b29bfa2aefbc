// Package kubelet is a kubelet for tests: it registers a Node with an API server and runs the Pods that are bound to
// it, each container as processes of this machine, with the local port's process runner. It reports their status, exit
// codes and logs to whoever asks the API server, so that Jobs really run there, and forwards ports.
//
// What a container is asked to run is its command and args; a container without a command waits for its image for
// ever, since none is pulled, unless Options.Entrypoints has the image. It works in an empty folder of its Pod unless
// workingDir says otherwise.
//
// Of volumes there are emptyDir, secret, configMap and projected of these, on Linux and as root: a container that
// mounts one runs in a mount namespace in which everything else is the machine's. Where the machine has a folder on the
// way to a mount point, it must have that, too. Such a container's program is started by a shell, which says 127 when
// there is none. The service account's token is left out, and a container that mounts anything else waits with an
// error that says so. Elsewhere an emptyDir is left out, too.
//
// Probes, lifecycle hooks, limits and security contexts mean nothing, Service addresses
// are not in the environment, and there are no events. A restarted kubelet does not find its containers again and
// reports them as lost.
//
// The package must not know of Jobs, nor of anything else that makes Pods.
package kubelet
