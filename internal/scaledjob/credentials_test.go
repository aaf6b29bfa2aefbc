package scaledjob

import (
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

func TestCredentialsThatEndAreReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		sj.Spec.Triggers[0].AuthenticationRef = &v1alpha1.AuthenticationRef{Name: "token"}
	})
	w.edit(func() {
		w.auth = &v1alpha1.TriggerAuthentication{Spec: v1alpha1.TriggerAuthenticationSpec{
			BoundServiceAccountToken: []v1alpha1.BoundServiceAccountToken{{Parameter: "token", ServiceAccountName: "worker"}},
		}}
		w.tokenLife = 3 * time.Second
	})
	w.eventually("built with a token", func() bool { return w.built >= 1 && w.ready().Status == metav1.ConditionTrue })
	w.eventually("built anew with another token, though nothing has changed", func() bool { return w.built >= 3 })

	// What cannot be read again does not stop what works.
	asked := 0
	w.edit(func() { w.noTokens, asked = true, w.tokens })
	w.eventually("asked in vain", func() bool { return w.tokens > asked })
	w.mu.Lock()
	before, built := w.measured, w.built
	w.mu.Unlock()
	w.controller.Changed(theKey)
	w.eventually("measured with the old token", func() bool { return w.measured > before })
	w.mu.Lock()
	if w.built != built || w.ready().Status != metav1.ConditionTrue {
		t.Errorf("built %d times, Ready is %v; want the triggers to go on", w.built-built, w.ready())
	}
	w.mu.Unlock()

	// Once they fail as well, there is nothing to go on with.
	w.edit(func() { w.queueErr = errors.New("WRONGPASS") })
	w.eventually("not ready", func() bool { return w.ready().Status == metav1.ConditionFalse })
	w.edit(func() { w.queueErr, w.noTokens = nil, false })
	w.eventually("ready again", func() bool { return w.built > built && w.ready().Status == metav1.ConditionTrue })
}

func TestTheNextReadingIsInTime(t *testing.T) {
	t.Parallel()
	live := &liveTriggers{}
	if got := live.left(time.Hour); got != time.Hour || live.due() {
		t.Errorf("without an end: %v, %v; want an hour and not due", got, live.due())
	}
	live.until = time.Now().Add(time.Minute)
	if got := live.left(time.Hour); got > time.Minute || got < 50*time.Second || live.due() {
		t.Errorf("with an end in a minute: %v, %v; want a minute and not due", got, live.due())
	}
	live.until = time.Now()
	if got := live.left(time.Hour); got != time.Second || !live.due() {
		t.Errorf("at its end: %v, %v; want a second and due", got, live.due())
	}
}
