package controlplane

import (
	"fmt"
	"os"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// The user that may do everything.
const (
	adminUser  = "kubernetes-admin"
	adminGroup = "system:masters"
)

// configureClients makes the administrator's configurations and client.
func (c *Cluster) configureClients() (err error) {
	if c.admin, err = c.UserConfig(adminUser, adminGroup); err != nil {
		return err
	}
	if c.client, err = kubernetes.NewForConfig(c.admin); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	return writeKubeconfig(c.KubeconfigFile(), c.admin)
}

// Config returns the configuration of a client that may do everything, without a limit on its requests. The API server
// does not queue them either, as it does those of other users: they are for tests and for a test's own measurements.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.admin) }

// Client returns a client that may do everything.
func (c *Cluster) Client() kubernetes.Interface { return c.client }

// KubeconfigFile returns the path of a kubeconfig with the same rights as Config.
func (c *Cluster) KubeconfigFile() string { return c.path("kubeconfig") }

// UserConfig returns the configuration of a client that is the user of that name in these groups, proved by a client
// certificate, without a limit on its requests. Such a user may do what RBAC grants: at first next to nothing. Any
// number of users can be made.
func (c *Cluster) UserConfig(name string, groups ...string) (*rest.Config, error) {
	user, err := c.keys.cluster.client(name, groups...)
	if err != nil {
		return nil, err
	}
	return &rest.Config{
		Host: c.ports.apiServer.url(),
		TLSClientConfig: rest.TLSClientConfig{
			CAData: c.keys.cluster.pem(), CertData: user.certificate, KeyData: user.key,
		},
		QPS: -1,
	}, nil
}

// UserKubeconfig writes a kubeconfig for a user, see UserConfig, and returns its path, which is below Dir.
func (c *Cluster) UserKubeconfig(name string, groups ...string) (string, error) {
	config, err := c.UserConfig(name, groups...)
	if err != nil {
		return "", err
	}
	file, err := os.CreateTemp(c.dir, "kubeconfig-*")
	if err != nil {
		return "", fmt.Errorf("make a kubeconfig for the user %s: %w", name, err)
	}
	if err := file.Close(); err != nil {
		return "", fmt.Errorf("make a kubeconfig for the user %s: %w", name, err)
	}
	return file.Name(), writeKubeconfig(file.Name(), config)
}

func writeKubeconfig(path string, config *rest.Config) error {
	const name = "offboard-test"
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters[name] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	kubeconfig.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificateData: config.CertData, ClientKeyData: config.KeyData,
	}
	kubeconfig.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	kubeconfig.CurrentContext = name
	if err := clientcmd.WriteToFile(*kubeconfig, path); err != nil {
		return fmt.Errorf("write the kubeconfig %s: %w", path, err)
	}
	return nil
}
