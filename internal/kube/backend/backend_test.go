package backend

import (
	"encoding/json"
	"io"
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
)

func names(infos []control.JobInfo) (names []string) {
	for _, info := range infos {
		names = append(names, info.Job.Name)
	}
	return names
}

// TestList has Jobs of all kinds.
func TestList(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	namespace := c.Namespace(t)
	b := ask(t, c.Config(), Need{Events: true})
	apply(t, c, namespace, scaledJob("work", "list", "127.0.0.1:1")+scaledJob("idle", "other", "127.0.0.1:1"))
	for _, manifest := range []string{
		job("succeeds", "work", runs("echo done")), job("fails", "work", runs("exit 3")),
		job("runs", "work", runs("echo begun; exec sleep 600")),
		job("waits", "work", "nodeSelector: {no: such}, "+runs("true")),
		job("other", "idle", runs("true")),
		`{apiVersion: batch/v1, kind: Job, metadata: {name: stranger}, spec: {suspend: true, template: {spec: {restartPolicy: Never, ` + runs("true") + `}}}}`,
	} {
		apply(t, c, namespace, manifest)
		time.Sleep(time.Second) // the creation time, by which they are ordered, has that resolution
	}
	patch, err := json.Marshal(map[string]any{"status": v1alpha1.ScaledJobStatus{Conditions: v1alpha1.Conditions{
		{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue},
		{Type: v1alpha1.ConditionActive, Status: metav1.ConditionTrue, Message: "it is active"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	err = b.keda.Patch(types.MergePatchType).Resource(scaledJobs).Namespace(namespace).Name("work").SubResource("status").
		Body(patch).Do(t.Context()).Error()
	if err != nil {
		t.Fatal(err)
	}
	work, err := b.getScaledJob(t.Context(), namespace, "work")
	if err != nil {
		t.Fatal(err)
	}
	for i, message := range []string{"second", "first"} {
		at := metav1.NewTime(time.Now().Add(-time.Duration(i) * time.Minute))
		_, err := b.core.Events(namespace).Create(t.Context(), &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{GenerateName: "e-", Namespace: namespace},
			InvolvedObject: corev1.ObjectReference{Kind: "ScaledJob", Namespace: namespace, Name: "work", UID: work.UID},
			Type:           "Normal", Reason: "KEDAJobsCreated", Message: message, FirstTimestamp: at, LastTimestamp: at, Count: 2,
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}

	var infos []control.ScaledJobInfo
	eventually(t, "one Job of each kind", func() bool {
		var err error
		if infos, err = b.ScaledJobs(t.Context(), namespace); err != nil {
			t.Fatal(err)
		}
		return len(infos) == 2 && [4]int{infos[1].Running, infos[1].Pending, infos[1].Succeeded, infos[1].Failed} == [4]int{1, 1, 1, 1}
	})
	idle, busy := infos[0], infos[1]
	if idle.Object.Name != "idle" || idle.LastReason != "no operator has looked at it yet" || len(idle.Events) != 0 {
		t.Errorf("got %+v", idle)
	}
	if busy.Queue != nil || busy.LastReason != "it is active" || len(busy.Events) != 2 || busy.Events[0].Message != "first" ||
		busy.Events[1].Count != 2 {
		t.Errorf("got %+v", busy)
	}
	everywhere, err := b.ScaledJobs(t.Context(), "")
	if err != nil || !slices.ContainsFunc(everywhere, func(info control.ScaledJobInfo) bool { return info.Object.UID == work.UID }) {
		t.Errorf("all namespaces: %v, %v", everywhere, err)
	}

	jobs, err := b.Jobs(t.Context(), namespace, "")
	if want := []string{"succeeds", "fails", "runs", "waits", "other"}; err != nil || !slices.Equal(names(jobs), want) {
		t.Errorf("got %v, %v, want %v", names(jobs), err, want)
	}
	eventually(t, "the other ScaledJob's Job with its Pod", func() bool {
		jobs, err = b.Jobs(t.Context(), namespace, "idle")
		return err != nil || !slices.Equal(names(jobs), []string{"other"}) || len(jobs[0].Pods) == 1
	})
	if err != nil || !slices.Equal(names(jobs), []string{"other"}) {
		t.Errorf("got %v, %v", jobs, err)
	}
	one, err := b.Job(t.Context(), namespace, "fails")
	if err != nil || len(one.Pods) != 1 || one.Pods[0].Status.Phase != corev1.PodFailed {
		t.Errorf("got %+v, %v", one, err)
	}
	_, err = b.Job(t.Context(), namespace, "none")
	wantError(t, err, control.NotFound, `jobs.batch "none" not found`)
}

// TestLogs asks for outputs of runs that have ended, go on, were restarted, and have not begun.
func TestLogs(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	namespace := c.Namespace(t)
	b := ask(t, c.Config(), Need{})
	apply(t, c, namespace,
		job("ended", "work", runs("echo one; echo two; printf three"))+
			job("goes-on", "work", runs("echo begun; while ! [ -e stop ]; do sleep 0.1; done; echo end")+`, terminationGracePeriodSeconds: 0`)+
			job("waits", "work", "nodeSelector: {no: such}, "+runs("true")))
	apply(t, c, namespace, `apiVersion: batch/v1
kind: Job
metadata: {name: restarts, labels: {scaledjob.keda.sh/name: work}}
spec:
  template:
    spec: {restartPolicy: OnFailure, containers: [{name: main, image: i, command: [sh, -c, "if [ -e again ]; then echo second; sleep 600; fi; touch again; echo first; exit 1"]}]}
`)
	status := func(name string) (status corev1.ContainerStatus) {
		info, err := b.Job(t.Context(), namespace, name)
		if err != nil {
			t.Fatal(err)
		}
		if len(info.Pods) > 0 && len(info.Pods[0].Status.ContainerStatuses) > 0 {
			status = info.Pods[0].Status.ContainerStatuses[0]
		}
		return status
	}
	eventually(t, "an end", func() bool { return status("ended").State.Terminated != nil })
	log, err := b.Logs(t.Context(), namespace, "ended", control.LogOptions{})
	if got := readAll(t, log, err); got != "one\ntwo\nthree" {
		t.Errorf("got %q", got)
	}
	log, err = b.Logs(t.Context(), namespace, "ended", control.LogOptions{Tail: ptr.To[int64](2), Container: "main", Follow: true})
	if got := readAll(t, log, err); got != "two\nthree" {
		t.Errorf("the tail: got %q", got)
	}
	_, err = b.Logs(t.Context(), namespace, "ended", control.LogOptions{Previous: true})
	wantError(t, err, control.NotFound, "container main of Pod ended-", "has no previous run")
	_, err = b.Logs(t.Context(), namespace, "ended", control.LogOptions{Container: "other"})
	wantError(t, err, control.NotFound, `has no container "other"; it has main`)
	_, err = b.Logs(t.Context(), namespace, "none", control.LogOptions{})
	wantError(t, err, control.NotFound, `jobs.batch "none" not found`)

	eventually(t, "a Pod", func() bool {
		info, err := b.Job(t.Context(), namespace, "waits")
		return err == nil && len(info.Pods) > 0
	})
	log, err = b.Logs(t.Context(), namespace, "waits", control.LogOptions{Follow: true})
	if got := readAll(t, log, err); got != "" {
		t.Errorf("of what has not begun: got %q", got)
	}

	eventually(t, "a restart", func() bool { s := status("restarts"); return s.RestartCount == 1 && s.State.Running != nil })
	log, err = b.Logs(t.Context(), namespace, "restarts", control.LogOptions{Previous: true, Follow: true})
	if got := readAll(t, log, err); got != "first\n" {
		t.Errorf("of the run before: got %q", got)
	}

	eventually(t, "a run", func() bool { return status("goes-on").State.Running != nil })
	log, err = b.Logs(t.Context(), namespace, "goes-on", control.LogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	begun := make([]byte, len("begun\n"))
	if _, err := io.ReadFull(log, begun); err != nil || string(begun) != "begun\n" {
		t.Errorf("got %q, %v", begun, err)
	}
	policy := metav1.DeletePropagationBackground
	if err := b.batch.Jobs(namespace).Delete(t.Context(), "goes-on", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, log, nil); got != "" { // it ends with the Pod
		t.Errorf("got %q", got)
	}
}

// TestItem has a Pod whose runner has reported its item.
func TestItem(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	namespace := c.Namespace(t)
	b := ask(t, c.Config(), Need{})
	apply(t, c, namespace, job("done", "work", "nodeSelector: {no: such}, "+runs("true")))
	var name string
	eventually(t, "a Pod", func() bool {
		info, err := b.Job(t.Context(), namespace, "done")
		if err == nil && len(info.Pods) == 1 {
			name = info.Pods[0].Name
		}
		return name != ""
	})
	// The scheduler writes too: that no node fits the Pod.
	if err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		pod, err := b.core.Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{Message: "offboard item: {\"user\": 1}\n"},
		}}}
		_, err = b.core.Pods(namespace).UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	jobs, err := b.Jobs(t.Context(), namespace, "work")
	if err != nil || len(jobs) != 1 || jobs[0].Item != `{"user": 1}` {
		t.Errorf("got %+v, %v", jobs, err)
	}
}

func TestPause(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	namespace := c.Namespace(t)
	b := ask(t, c.Config(), Need{})
	apply(t, c, namespace, scaledJob("work", "list", "127.0.0.1:1"))
	for i, step := range []struct{ pause, changed bool }{{false, false}, {true, true}, {true, false}, {false, true}, {false, false}} {
		changed, err := b.SetPaused(t.Context(), namespace, "work", step.pause)
		if err != nil || changed != step.changed {
			t.Errorf("step %d: got %t, %v", i, changed, err)
		}
		sj, err := b.getScaledJob(t.Context(), namespace, "work")
		if err != nil {
			t.Fatal(err)
		}
		value, found := sj.Annotations[v1alpha1.AnnotationPaused]
		if found != step.pause || found && value != "true" || sj.Annotations["kubectl.kubernetes.io/last-applied-configuration"] == "" {
			t.Errorf("step %d: the annotations are %v", i, sj.Annotations)
		}
	}
	_, err := b.SetPaused(t.Context(), namespace, "none", true)
	wantError(t, err, control.NotFound, `scaledjobs.keda.sh "none" not found`)
	_, err = b.SetPaused(t.Context(), "no-such", "work", true)
	wantError(t, err, control.NotFound, `namespace "no-such" does not exist on the cluster of context test`)
}

func TestReason(t *testing.T) {
	t.Parallel()
	condition := func(kind v1alpha1.ConditionType, status metav1.ConditionStatus, message string) v1alpha1.Condition {
		return v1alpha1.Condition{Type: kind, Status: status, Message: message}
	}
	active := condition(v1alpha1.ConditionActive, metav1.ConditionTrue, "work waits")
	paused := condition(v1alpha1.ConditionPaused, metav1.ConditionTrue, "it is paused")
	for _, test := range []struct {
		conditions v1alpha1.Conditions
		paused     bool
		want       string
	}{
		{nil, false, "no operator has looked at it yet"},
		{nil, true, "no operator has looked at it yet"},
		{v1alpha1.Conditions{paused}, true, "paused"},
		{v1alpha1.Conditions{condition(v1alpha1.ConditionReady, metav1.ConditionFalse, "no answer"), paused}, true, "paused"},
		{v1alpha1.Conditions{condition(v1alpha1.ConditionReady, metav1.ConditionFalse, "no answer"), active}, false, "no answer"},
		{v1alpha1.Conditions{condition(v1alpha1.ConditionReady, metav1.ConditionTrue, "ready"), active}, false, "work waits"},
	} {
		sj := &v1alpha1.ScaledJob{Status: v1alpha1.ScaledJobStatus{Conditions: test.conditions}}
		if test.paused {
			sj.Annotations = map[string]string{v1alpha1.AnnotationPaused: "true"}
		}
		if got := reason(sj); got != test.want {
			t.Errorf("%+v: %q, want %q", test, got, test.want)
		}
	}
}

// TestClaimedItem has a Job that was handed its item, as its annotation tells, until its runner says more.
func TestClaimedItem(t *testing.T) {
	t.Parallel()
	job := &batchv1.Job{}
	job.Annotations = map[string]string{v1alpha1.AnnotationItem: "handed"}
	if got := jobInfo(job, nil).Item; got != "handed" {
		t.Errorf("got %q", got)
	}
	pod := &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: "offboard item: reported\n"}},
	}}}}
	if got := jobInfo(job, []*corev1.Pod{pod}).Item; got != "reported" {
		t.Errorf("got %q", got)
	}
}
