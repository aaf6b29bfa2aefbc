package controlplane

import (
	"fmt"
	"net"
)

// The addresses of Services, which nothing routes to; the first is that of the API server.
const serviceRange = "10.0.0.0/24"

var firstServiceIP = net.IPv4(10, 0, 0, 1)

// ports are those of the servers.
type ports struct{ etcd, etcdPeers, apiServer *port }

func (p *ports) reserve() (err error) {
	for _, target := range []**port{&p.etcd, &p.etcdPeers, &p.apiServer} {
		if *target, err = reservePort(); err != nil {
			return err
		}
	}
	return nil
}

func (p *ports) release() {
	for _, reserved := range []*port{p.etcd, p.etcdPeers, p.apiServer} {
		if reserved != nil {
			reserved.release()
		}
	}
}

func (p *port) url() string { return fmt.Sprintf("https://127.0.0.1:%d", p.number) }

// configure says how the components are started. It starts nothing.
func (c *Cluster) configure() error {
	if err := c.configureClients(); err != nil {
		return err
	}
	c.etcd = c.component("etcd", c.etcdFlags()...)
	c.apiServer = c.component("kube-apiserver", append(c.apiServerFlags(), c.options.APIServerFlags...)...)
	for _, client := range []struct {
		name  string
		flags []string
	}{
		{"kube-controller-manager", c.controllerManagerFlags()},
		{"kube-scheduler", nil},
	} {
		kubeconfig, err := c.UserKubeconfig("system:" + client.name)
		if err != nil {
			return err
		}
		c.others = append(c.others, c.component(client.name, append(clientFlags(kubeconfig), client.flags...)...))
	}
	return nil
}

func (c *Cluster) component(name string, flags ...string) *component {
	return newComponent(c.binaries, c.dir, name, flags...)
}

func (c *Cluster) etcdFlags() []string {
	k := c.keys
	return []string{
		"--name=default",
		"--data-dir=" + c.path("etcd"),
		"--listen-client-urls=" + c.ports.etcd.url(),
		"--advertise-client-urls=" + c.ports.etcd.url(),
		"--listen-peer-urls=" + c.ports.etcdPeers.url(),
		"--initial-advertise-peer-urls=" + c.ports.etcdPeers.url(),
		"--initial-cluster=default=" + c.ports.etcdPeers.url(),
		"--socket-reuse-port",
		// Nobody but the API server may read and write past it, also on a machine that several people use.
		"--client-cert-auth", "--trusted-ca-file=" + k.internalCA,
		"--cert-file=" + k.etcd.certificate, "--key-file=" + k.etcd.key,
		"--peer-client-cert-auth", "--peer-trusted-ca-file=" + k.internalCA,
		"--peer-cert-file=" + k.etcd.certificate, "--peer-key-file=" + k.etcd.key,
		// It is alone, and need not wait for other candidates.
		"--heartbeat-interval=10", "--election-timeout=100",
		// What is lost with the machine's power is of no use to a test.
		"--unsafe-no-fsync",
		"--log-level=error",
	}
}

func (c *Cluster) apiServerFlags() []string {
	k := c.keys
	return []string{
		"--etcd-servers=" + c.ports.etcd.url(),
		"--etcd-cafile=" + k.internalCA,
		"--etcd-certfile=" + k.etcdClient.certificate, "--etcd-keyfile=" + k.etcdClient.key,
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", c.ports.apiServer.number),
		"--permit-port-sharing",
		// An Endpoints object may not hold a loopback address.
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=" + serviceRange,
		"--tls-cert-file=" + k.apiServer.certificate, "--tls-private-key-file=" + k.apiServer.key,
		"--client-ca-file=" + k.clusterCA,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + k.serviceAccounts.certificate,
		"--service-account-signing-key-file=" + k.serviceAccounts.key,
		"--kubelet-certificate-authority=" + k.internalCA,
		"--kubelet-client-certificate=" + k.kubeletClient.certificate, "--kubelet-client-key=" + k.kubeletClient.key,
		"--kubelet-preferred-address-types=InternalIP",
		"--authorization-mode=RBAC",
		"--allow-privileged",
		"--profiling=false",
	}
}

// clientFlags keep a client of the API server from electing a leader, from listening, and from being slower than the
// server.
func clientFlags(kubeconfig string) []string {
	return []string{
		"--kubeconfig=" + kubeconfig, "--leader-elect=false", "--secure-port=0", "--profiling=false",
		"--kube-api-qps=2000", "--kube-api-burst=4000",
	}
}

func (c *Cluster) controllerManagerFlags() []string {
	return []string{
		"--use-service-account-credentials",
		"--service-account-private-key-file=" + c.keys.serviceAccounts.key,
		"--root-ca-file=" + c.keys.clusterCA,
	}
}
