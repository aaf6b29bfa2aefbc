package jobs

import (
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/internal/local/process"
)

// PodRunner runs Pods as processes.
type PodRunner interface {
	// Start begins to run the Pod and returns without waiting for its end. The Pod must not be modified. A Pod that
	// cannot be started is one that fails: it is reported through the observer.
	Start(pod *corev1.Pod, files Files, observer Observer)
	// Stop ends the Pod's processes: SIGTERM, and after the grace period SIGKILL. It does not wait. The end is reported
	// like any other. A Pod that has ended already, or is being stopped, is no error.
	Stop(uid types.UID, grace time.Duration)
}

// Observer is told how a Pod fares. Its functions never block, may be called from any goroutine, also before Start has
// returned, but for one Pod only in the order in which things happened.
type Observer struct {
	// Status takes the Pod's whole status after each change. One with phase Succeeded or Failed is the last; when it
	// is given, no process of the Pod is left.
	Status func(corev1.PodStatus)
	// Processes takes what is needed to find the Pod's processes again after a crash of this program, as often as that
	// changes; each call replaces what the one before gave.
	Processes func(running []process.Recorded)
}

// Files names the files that a Pod leaves in its Job's folder. They live as long as the Job.
type Files struct {
	// Dir is the Job's folder, which exists.
	Dir string
	// Pod is the Pod's name.
	Pod string
}

// Log is the file for the output of one run of a container; restart is 0 for the first run.
func (f Files) Log(container string, restart int32) string { return f.path(container, restart, "log") }

// Report is the file for a report on one run of a container that must outlive this program, such as how it ended.
func (f Files) Report(container string, restart int32) string {
	return f.path(container, restart, "report")
}

// path joins what never holds a slash: the names are validated when a Job is created and when it is loaded.
func (f Files) path(container string, restart int32, kind string) string {
	return filepath.Join(f.Dir, f.Pod+"."+container+"."+strconv.Itoa(int(restart))+"."+kind)
}
