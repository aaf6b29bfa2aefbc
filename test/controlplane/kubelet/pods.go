package kubelet

import (
	"context"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/internal/local/pods"
)

// requestTimeout bounds one request to the API server.
const requestTimeout = 10 * time.Second

// podState is what the kubelet knows of a Pod that it has seen, until the API server knows it no more. Without it, a
// watch that is late would make a Pod run twice. It is guarded by the Kubelet's mu.
type podState struct {
	key types.NamespacedName
	// status is what the API server is to show; empty until there is something to say.
	status corev1.PodStatus
	// version counts the statuses; reported is that of the last one which the API server has taken.
	version, reported int
	// held tells that nothing of the Pod was started, and that it waits for ever.
	held bool
	// finished tells that nothing of the Pod runs or will run.
	finished bool
}

// work brings one Pod after the other in line with the API server.
func (k *Kubelet) work(ctx context.Context) {
	for {
		key, shutdown := k.queue.Get()
		if shutdown {
			return
		}
		if err := k.sync(ctx, key); err != nil && ctx.Err() == nil {
			k.log.Warn("A pod could not be brought in line with the API server", "node", k.options.NodeName,
				"namespace", key.Namespace, "pod", key.Name, "error", err)
			k.queue.AddRateLimited(key)
		} else {
			k.queue.Forget(key)
		}
		k.queue.Done(key)
	}
}

// sync is called for one Pod at a time: when the API server tells of a change, and when there is a status to report.
func (k *Kubelet) sync(ctx context.Context, key types.NamespacedName) error {
	object, exists, err := k.informer.GetStore().GetByKey(key.String())
	if err != nil {
		return err
	}
	pod, _ := object.(*corev1.Pod)
	if !exists {
		k.forgetOthers(key, "")
		return nil
	}
	k.forgetOthers(key, pod.UID)
	if k.state(pod.UID) == nil {
		k.admit(pod)
	}
	if pod.DeletionTimestamp != nil {
		k.terminate(pod)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	finished, err := k.report(ctx, pod)
	if err != nil {
		return err
	}
	if finished && pod.DeletionTimestamp != nil {
		return k.confirmDeletion(ctx, pod)
	}
	return nil
}

func (k *Kubelet) state(uid types.UID) *podState {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pods[uid]
}

// forgetOthers ends and forgets the Pods of this name but the one with the UID: the API server knows them no more.
func (k *Kubelet) forgetOthers(key types.NamespacedName, uid types.UID) {
	k.mu.Lock()
	var gone []types.UID
	for other, state := range k.pods {
		if state.key == key && other != uid {
			gone = append(gone, other)
			if state.finished {
				delete(k.pods, other)
			}
		}
	}
	k.mu.Unlock()
	for _, other := range gone {
		// The last status of a Pod that still runs brings us back here.
		if k.runner.Stop(other, pods.Stop{Grace: new(time.Duration)}) {
			continue
		}
		if err := os.RemoveAll(k.podDir(other)); err != nil {
			k.log.Warn("The folder of a pod could not be removed", "namespace", key.Namespace, "pod", key.Name,
				"error", err)
		}
	}
}

// admit decides what becomes of a Pod that has not been seen before.
func (k *Kubelet) admit(pod *corev1.Pod) {
	state := &podState{key: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}}
	k.mu.Lock()
	k.pods[pod.UID] = state
	k.mu.Unlock()

	switch {
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		// It is as its status says, whoever wrote that.
		k.mu.Lock()
		state.status, state.finished = pod.Status, true
		k.mu.Unlock()
	case started(pod):
		k.set(state, lost(pod), true)
	case pod.DeletionTimestamp != nil:
		k.set(state, unstarted(pod, corev1.PodFailed, "", ""), true)
	case k.withoutCommand(pod) != "":
		state.held = true
		k.set(state, unstarted(pod, corev1.PodPending, reasonImagePull,
			fmt.Sprintf("the test kubelet pulls no images, so container %q needs a command", k.withoutCommand(pod))), false)
	default:
		k.run(pod, state)
	}
}

func (k *Kubelet) run(pod *corev1.Pod, state *podState) {
	err := os.MkdirAll(k.workDir(pod.UID), 0o700)
	if err == nil {
		err = k.runner.Start(pod, func(status corev1.PodStatus) {
			k.set(state, status, status.Phase == corev1.PodSucceeded || status.Phase == corev1.PodFailed)
			k.queue.Add(state.key)
		})
	}
	if err != nil {
		status := unstarted(pod, corev1.PodFailed, "", "")
		status.Reason, status.Message = "UnexpectedAdmissionError", err.Error()
		k.set(state, status, true)
	}
}

// set notes what is to be reported.
func (k *Kubelet) set(state *podState, status corev1.PodStatus, finished bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	state.status, state.finished = status, finished
	state.version++
}

// terminate stops a Pod that is being deleted. Called again, it can only shorten the grace period.
func (k *Kubelet) terminate(pod *corev1.Pod) {
	grace := time.Duration(0)
	if pod.DeletionGracePeriodSeconds != nil {
		grace = time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
	}
	if k.runner.Stop(pod.UID, pods.Stop{Grace: &grace}) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	// One that is not held has just ended: its last status is on its way.
	if state := k.pods[pod.UID]; state.held && !state.finished {
		state.status.Phase, state.finished = corev1.PodFailed, true
		state.version++
	}
}

// report tells the API server of a status that it does not have yet, and whether the Pod has finished.
func (k *Kubelet) report(ctx context.Context, pod *corev1.Pod) (finished bool, err error) {
	k.mu.Lock()
	state := k.pods[pod.UID]
	status, version, finished := state.status, state.version, state.finished
	done := version == state.reported
	k.mu.Unlock()
	if done {
		return finished, nil
	}
	if finished && pod.DeletionTimestamp != nil {
		status = ended(status)
	}
	data, err := patch(pod.UID, status)
	if err != nil {
		return finished, err
	}
	_, err = k.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, data,
		metav1.PatchOptions{}, "status")
	if err != nil && !gone(err) {
		return finished, fmt.Errorf("report the status: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	state.reported = version
	return finished, nil
}

// confirmDeletion makes the API server remove a Pod whose containers have ended.
func (k *Kubelet) confirmDeletion(ctx context.Context, pod *corev1.Pod) error {
	if pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds == 0 {
		// Its finalizers are all that it waits for.
		return nil
	}
	err := k.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64), Preconditions: metav1.NewUIDPreconditions(string(pod.UID)),
	})
	if err != nil && !gone(err) {
		return fmt.Errorf("confirm the deletion: %w", err)
	}
	return nil
}

// gone tells whether the request failed because there is no Pod of this UID any more.
func gone(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsConflict(err) }
