// Package controlplane starts real Kubernetes control planes for tests: etcd, kube-apiserver, kube-controller-manager
// and kube-scheduler, as processes on free ports of 127.0.0.1, each control plane in a folder of its own, several at
// once. What they are built from is pinned by the module in build/; scripts/controlplane builds it, once a machine.
//
// A control plane is like one that kubeadm sets up: TLS everywhere, RBAC, the default admission plugins and
// controllers, a service account per controller. Two things differ, for speed: etcd does not wait for the disk, and
// the controllers and the scheduler may send as many requests as the API server takes. Pods are run by the test
// kubelet, see Options.Kubelet and the package kubelet.
//
// On Linux no process outlives the program that has started it, however that ends. Elsewhere one that is killed leaves
// its control plane behind.
//
// The package is for tests and tools of this repository. It must not know of Offboard.
package controlplane
