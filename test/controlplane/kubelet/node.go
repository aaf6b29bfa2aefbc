package kubelet

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// A kubelet's lease is renewed every 10 s and lasts for 40 s, as Kubernetes' own is by default.
const (
	leaseDuration = 40 * time.Second
	renewInterval = leaseDuration / 4
	renewRetry    = time.Second
	renewTimeout  = renewInterval
)

// address is what the containers and the logs' server are reached at.
const address = "127.0.0.1"

// capacity is more than tests need: what processes really use of this machine is nobody's business here.
var capacity = corev1.ResourceList{
	corev1.ResourceCPU:              resource.MustParse("1000"),
	corev1.ResourceMemory:           resource.MustParse("4Ti"),
	corev1.ResourceEphemeralStorage: resource.MustParse("4Ti"),
	corev1.ResourcePods:             resource.MustParse("10000"),
}

// node keeps the Node object and its lease.
type node struct {
	name   string
	port   int
	client kubernetes.Interface
	log    *slog.Logger
}

// register creates the Node and its lease, or takes over those that there are.
func (n *node) register(ctx context.Context) error {
	version, err := n.client.Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("ask the API server for its version: %w", err)
	}
	object := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: n.name,
			Labels: map[string]string{
				corev1.LabelHostname:   n.name,
				corev1.LabelOSStable:   runtime.GOOS,
				corev1.LabelArchStable: runtime.GOARCH,
			},
		},
		Status: corev1.NodeStatus{
			NodeInfo: corev1.NodeSystemInfo{
				KubeletVersion: version.GitVersion, OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
			},
		},
	}
	n.fillStatus(&object.Status)
	_, err = n.client.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		err = n.updateStatus(ctx)
	}
	if err != nil {
		return fmt.Errorf("register node %s: %w", n.name, err)
	}
	return n.renew(ctx)
}

func (n *node) fillStatus(status *corev1.NodeStatus) {
	status.Capacity, status.Allocatable = capacity, capacity
	status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: address}, {Type: corev1.NodeHostName, Address: n.name},
	}
	status.DaemonEndpoints.KubeletEndpoint.Port = int32(n.port)
	now := metav1.Now()
	status.Conditions = []corev1.NodeCondition{
		{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientMemory"},
		{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasNoDiskPressure"},
		{Type: corev1.NodePIDPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientPID"},
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"},
	}
	for i := range status.Conditions {
		status.Conditions[i].LastHeartbeatTime, status.Conditions[i].LastTransitionTime = now, now
	}
}

func (n *node) updateStatus(ctx context.Context) error {
	object, err := n.client.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	n.fillStatus(&object.Status)
	_, err = n.client.CoreV1().Nodes().UpdateStatus(ctx, object, metav1.UpdateOptions{})
	return err
}

// heartbeat renews the lease, and says again that the Node is ready when somebody has said otherwise, until ctx ends.
func (n *node) heartbeat(ctx context.Context) {
	timer := time.NewTimer(renewInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := renewInterval
		if err := n.beat(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("The node's heartbeat failed", "node", n.name, "error", err)
			next = renewRetry
		}
		timer.Reset(next)
	}
}

func (n *node) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	if err := n.renew(ctx); err != nil {
		return err
	}
	object, err := n.client.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return n.register(ctx)
	case err != nil:
		return fmt.Errorf("read node %s: %w", n.name, err)
	case ready(object):
		return nil
	}
	if err := n.updateStatus(ctx); err != nil {
		return fmt.Errorf("update the status of node %s: %w", n.name, err)
	}
	return nil
}

func ready(object *corev1.Node) bool {
	for _, condition := range object.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// renew renews the lease, and creates it where there is none.
func (n *node) renew(ctx context.Context) error {
	leases := n.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	lease, err := leases.Get(ctx, n.name, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return fmt.Errorf("read the lease of node %s: %w", n.name, err)
	}
	lease.Name, lease.Namespace = n.name, corev1.NamespaceNodeLease
	lease.Spec = coordinationv1.LeaseSpec{
		HolderIdentity:       &n.name,
		LeaseDurationSeconds: ptr.To(int32(leaseDuration.Seconds())),
		RenewTime:            &metav1.MicroTime{Time: time.Now()},
	}
	if missing {
		_, err = leases.Create(ctx, lease, metav1.CreateOptions{})
	} else {
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("renew the lease of node %s: %w", n.name, err)
	}
	return nil
}
