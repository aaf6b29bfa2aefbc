package jobs

import (
	"path/filepath"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/internal/local/pods"
	"github.com/offboard-dev/offboard/internal/local/process"
)

// PodRunner runs Pods as processes; *pods.Runner is one. What it needs of the Controller are the methods LogPath,
// ReportPath, ItemPath, ExitPath and RecordStart.
type PodRunner interface {
	// Start begins to run the Pod and returns at once. update is called with each new status, in order; after the last,
	// with phase Succeeded or Failed, no process of the Pod is left. With an error the Pod is not run, and update is not
	// called.
	Start(pod *corev1.Pod, update func(corev1.PodStatus)) error
	// Stop ends the Pod's processes and returns at once. The end is reported like any other. It tells whether there was
	// something to stop.
	Stop(uid types.UID, stop pods.Stop) bool
}

var _ PodRunner = (*pods.Runner)(nil)

// LogPath is the file for the output of one run of a container, restarts being 0 for the first. It is in the Job's
// folder, which exists, and lives as long as the Job.
func (c *Controller) LogPath(pod *corev1.Pod, container string, restarts int32) string {
	return c.podFile(pod, container+"."+strconv.Itoa(int(restarts))+".log")
}

// ReportPath is the file for what a container reports of its work, in the same folder.
func (c *Controller) ReportPath(pod *corev1.Pod, container string) string {
	return c.podFile(pod, container+".report")
}

// ItemPath is the file of the item that the Job of a running Pod was handed; empty when it was handed none as a file.
func (c *Controller) ItemPath(pod *corev1.Pod) string {
	r, ok := c.running.Load(pod.UID)
	if !ok || !r.(*record).item {
		return ""
	}
	return filepath.Join(c.jobDir(r.(*record).key), itemFile)
}

// ExitPath is the file for how the containers of a running Pod end, for which their exit status must outlive this
// program: the Job has an item, which must not be done twice. It is empty for a Job without.
func (c *Controller) ExitPath(pod *corev1.Pod) string {
	r, ok := c.running.Load(pod.UID)
	if !ok || !r.(*record).settles {
		return ""
	}
	return filepath.Join(c.jobDir(r.(*record).key), exitsFile)
}

// podFile joins what never holds a slash: all names are validated when a Job is created and when it is loaded.
func (c *Controller) podFile(pod *corev1.Pod, rest string) string {
	job := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Labels[batchv1.JobNameLabel]}
	return filepath.Join(c.jobDir(job), pod.Name+"."+rest)
}

// RecordStart stores what is needed to find a container's process again after a crash of this program. It does not wait
// until that is on disk.
func (c *Controller) RecordStart(pod *corev1.Pod, container string, pid int, startID string) {
	if r, ok := c.running.Load(pod.UID); ok {
		c.tell(r.(*record), news{
			uid: pod.UID, container: container, process: process.Recorded{PID: pid, StartID: startID},
		})
	}
}
