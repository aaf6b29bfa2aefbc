package kube

import (
	"errors"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// before does something before each request is sent, as if the process had been stopped there.
type before struct {
	http.RoundTripper
	do func()
}

func (b before) RoundTrip(request *http.Request) (*http.Response, error) {
	b.do()
	return b.RoundTripper.RoundTrip(request)
}

// TestFence has the right to write end while a Job is being asked for: it is not sent, also on a connection that is
// there. When there is a right again, it is.
func TestFence(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	owner := types.NamespacedName{Namespace: plane.Namespace(t), Name: "work"}
	var left atomic.Int64
	var ends bool
	config := fenced(plane.Config(), func() time.Duration { return time.Duration(left.Load()) })
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return before{next, func() {
			if ends {
				left.Store(0)
			}
		}}
	})
	j := jobsOn(aClient(t, config))
	j.reader = aClient(t, plane.Config())
	var made int
	for i, late := range []bool{true, false, true, true, false} {
		left.Store(int64(time.Minute))
		ends = late
		job, err := j.Create(t.Context(), aPlainJob(owner), nil)
		switch {
		case late && !errors.Is(err, errLost):
			t.Errorf("%d: got %v, %v", i, job, err)
		case !late && err != nil:
			t.Errorf("%d: %v", i, err)
		case !late:
			made++
		}
	}
	var all batchv1.JobList
	if err := j.reader.List(t.Context(), &all, client.InNamespace(owner.Namespace)); err != nil || len(all.Items) != made {
		t.Errorf("there are %d Jobs, want %d: %v", len(all.Items), made, err)
	}
	// Where the connection broke before the request, it is only later known that there is no such Job.
	eventually(t, "just those Jobs are known", func() bool {
		listed, err := j.List(t.Context(), owner)
		return err == nil && len(listed) == made
	})
}

// TestFenceOfAWriteThatWaits has a server read nothing, so that a write waits for room: it ends with the right to write.
func TestFenceOfAWriteThatWaits(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var end time.Time
	c := fencedConn{conn, func() time.Duration {
		if end.IsZero() {
			end = time.Now().Add(300 * time.Millisecond) // from the first write on, however late that is
		}
		return time.Until(end)
	}}
	if n, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().Before(end) {
		t.Errorf("%d bytes were written, %v", n, err)
	}
	if n, err := c.Write([]byte("more")); !errors.Is(err, errLost) || n != 0 {
		t.Errorf("%d bytes were written after the end, %v", n, err)
	}
}
