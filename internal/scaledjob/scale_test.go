package scaledjob

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/limits"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// TestSilentServerHoldsNobodyUp has more ScaledJobs wait for a server that does not answer than there are workers. While
// they do, others get their Jobs.
func TestSilentServerHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	f := newFarm(t, limits.Limits{})
	f.config.Workers = 2
	for i := range 20 {
		f.silent[f.add("default", fmt.Sprint("silent-", i), "", 0)] = true
	}
	f.start()
	f.eventually("all that is silent is asked", func() bool {
		for key := range f.silent {
			if f.measured[key] == 0 {
				return false
			}
		}
		return true
	})
	key := f.add("default", "answers", "", 0)
	began := time.Now()
	f.push(key, 3)
	f.eventually("its Jobs are made", func() bool { return f.created[key] == 3 })
	if took := time.Since(began); took >= measureTimeout {
		t.Errorf("it took %v, as long as the others wait", took)
	}
}

// TestStatusIsWrittenOnceASecond lets a queue be empty and full in turn.
func TestStatusIsWrittenOnceASecond(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) { sj.Spec.MaxReplicaCount = new(int32) })
	w.eventually("ready", func() bool { return w.ready().Status == metav1.ConditionTrue })
	w.mu.Lock()
	before, began := w.writes, time.Now()
	w.mu.Unlock()
	const flips = 40
	for i := range flips {
		w.edit(func() { w.queue = float64((i + 1) % 2) })
		w.again()
	}
	w.edit(func() { w.queue = 1 })
	w.eventually("the last state is written, and what led to it is told", func() bool {
		return w.condition(v1alpha1.ConditionActive).Status == metav1.ConditionTrue && w.told(reasonActive) > flips/2
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	writes, most := w.writes-before, int(time.Since(began)/writeEvery)+1
	if writes > most {
		t.Errorf("written %d times in %v, want %d at the most", writes, time.Since(began), most)
	}
}

// TestPasswordIsReplacedWithoutAGap changes a Secret and the server's password at the same time.
func TestPasswordIsReplacedWithoutAGap(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		sj.Spec.JobTargetRef.Template.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{
			SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "redis"}},
		}}
	})
	set := func(password string) func() {
		return func() {
			w.password = password
			w.secret = &corev1.Secret{Data: map[string][]byte{"PASSWORD": []byte(password)}}
		}
	}
	w.edit(set("first"))
	w.eventually("ready", func() bool { return w.ready().Status == metav1.ConditionTrue })
	for _, password := range []string{"second", "third"} {
		w.mu.Lock()
		built, created := w.built, w.created
		w.events = nil
		w.mu.Unlock()
		w.edit(func() {
			set(password)()
			w.queue++
		})
		w.eventually("its Job is made with the new password", func() bool {
			return w.built == built+1 && w.created == created+1
		})
		w.again()
		w.mu.Lock()
		if w.ready().Status != metav1.ConditionTrue || w.told(reasonScalerFailed) > 0 {
			t.Errorf("with the password %q: Ready is %v, events %q", password, w.ready(), w.events)
		}
		w.mu.Unlock()
	}
}

// holding is a trigger whose measurements hold for long.
type holding struct{ memoryTrigger }

func (h holding) Measure(ctx context.Context) (trigger.Measurement, error) {
	m, err := h.memoryTrigger.Measure(ctx)
	m.Holds = time.Hour
	return m, err
}

// TestQuietIsNotPolled compares a ScaledJob whose trigger tells of changes with one whose trigger does not.
func TestQuietIsNotPolled(t *testing.T) {
	t.Parallel()
	polling := func(sj *v1alpha1.ScaledJob) {
		sj.Spec.PollingInterval = new(int32)
		*sj.Spec.PollingInterval = 1
		sj.Spec.Triggers[0].Type = "holding"
	}
	w := newWorldWith(t, Config{}, polling)
	asks := newWorldWith(t, Config{}, func(sj *v1alpha1.ScaledJob) { polling(sj); sj.Spec.Triggers[0].Type = "memory" })
	w.eventually("ready", func() bool { return w.ready().Status == metav1.ConditionTrue })
	asks.eventually("asked every second", func() bool { return asks.measured >= 5 })
	w.mu.Lock()
	// It is asked at first, and again when its status or its random first look is due.
	if w.measured > 3 {
		t.Errorf("asked %d times", w.measured)
	}
	w.mu.Unlock()
	w.edit(func() { w.queue = 1 })
	w.eventually("its Job is made", func() bool { return w.created == 1 })
	w.mu.Lock()
	before := w.measured
	w.mu.Unlock()
	w.eventually("asked every second, as there is work", func() bool { return w.measured >= before+2 })
}
