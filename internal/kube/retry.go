package kube

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// errLost is what a write gets that must not be sent.
var errLost = errors.New("another replica may look after it by now")

// retryPauses are the pauses between attempts at a request, each lengthened at random by up to half.
var retryPauses = []time.Duration{
	50 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second,
}

// lastAnswer is how long the answer to a request is waited for when the program ends meanwhile: of a request that is
// broken off nobody knows whether it takes effect, and after whose catchUp.
const lastAnswer = 3 * time.Second

// retry makes a request again while the error says that it may succeed later. The client itself waits where the server
// says for how long (Retry-After). The request's context outlives ctx by lastAnswer.
func retry(ctx context.Context, request func(ctx context.Context) error) error {
	requesting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	release := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(lastAnswer)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-requesting.Done():
		}
	})
	defer release()
	var err error
	for _, pause := range slices.Concat([]time.Duration{0}, retryPauses) {
		if pause > 0 && !wait(ctx, pause+rand.N(pause/2)) {
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if err = request(requesting); err == nil || !passing(err) {
			return err
		}
	}
	return err
}

// wait waits; false when ctx has ended before.
func wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// passing tells whether the same request may succeed a moment later. A server that refuses connections is down for
// longer than that: the controller comes back to it.
func passing(err error) bool {
	switch {
	case apierrors.IsTooManyRequests(err):
		return true
	case apierrors.IsConflict(err):
		// Two requests at once wanted to be counted by the same quota. A UID that is not the expected one stays so.
		return !strings.Contains(strings.ToLower(err.Error()), "precondition")
	}
	return !answered(err)
}

// answered tells whether an error is the server's answer, or the request has not reached it: then nothing has been
// done. Of a lost connection, a timeout or an error within the server that is not certain. An admission webhook that
// the server cannot reach is an answer: nothing is stored before it has agreed.
func answered(err error) bool {
	var dns *net.DNSError
	if utilnet.IsConnectionRefused(err) || errors.Is(err, errLost) || errors.As(err, &dns) {
		return true
	}
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		return status.Status().Code < http.StatusInternalServerError ||
			strings.Contains(err.Error(), "failed calling webhook")
	}
	return false
}
