package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var quiet = slog.New(slog.DiscardHandler)

func TestErrorClasses(t *testing.T) {
	t.Parallel()
	jobs := schema.GroupResource{Group: "batch", Resource: "jobs"}
	etcd := &apierrors.StatusError{ErrStatus: metav1.Status{Code: 500, Message: "etcdserver: request timed out"}}
	gateway := apierrors.NewGenericServerResponse(http.StatusBadGateway, "post", jobs, "", "", 0, true)
	for _, c := range []struct {
		err               error
		answered, passing bool
	}{
		{apierrors.NewAlreadyExists(jobs, "a"), true, false},
		{apierrors.NewForbidden(jobs, "a", errors.New("exceeded quota")), true, false},
		{apierrors.NewInvalid(schema.GroupKind{}, "a", nil), true, false},
		{apierrors.NewTooManyRequests("slow down", 0), true, true},
		{apierrors.NewConflict(jobs, "a", errors.New("the quota was changed")), true, true},
		{apierrors.NewConflict(jobs, "a", errors.New("the UID in the precondition (b) does not match the UID in record")), true, false},
		{apierrors.NewConflict(jobs, "a", errors.New("Precondition failed: UID in precondition: b")), true, false},
		{apierrors.NewTimeoutError("no answer from the storage", 0), false, true},
		{apierrors.NewServerTimeout(jobs, "create", 1), false, true},
		{apierrors.NewServiceUnavailable("shutting down"), false, true},
		{apierrors.NewInternalError(errors.New(`failed calling webhook "x": connect: connection refused`)), true, false},
		{apierrors.NewInternalError(errors.New("something else")), false, true},
		{etcd, false, true},
		{gateway, false, true},
		{fmt.Errorf("post: %w", syscall.ECONNREFUSED), true, false},
		{fmt.Errorf("post: %w", &net.DNSError{Name: "api"}), true, false},
		{fmt.Errorf("post: %w", syscall.ECONNRESET), false, true},
		{fmt.Errorf("post: %w", io.ErrUnexpectedEOF), false, true},
		{errors.New("http2: server sent GOAWAY and closed the connection"), false, true},
		{fmt.Errorf("post: %w", context.DeadlineExceeded), false, true},
		{errLost, true, false},
	} {
		if got := answered(c.err); got != c.answered {
			t.Errorf("answered(%v) = %v", c.err, got)
		}
		if got := passing(c.err); got != c.passing {
			t.Errorf("passing(%v) = %v", c.err, got)
		}
	}
}

// forgetful is a connection that carries out the first request to create a Job and then answers as an overloaded proxy
// does, which makes the client repeat the request by itself.
type forgetful struct {
	http.RoundTripper
	forgotten *atomic.Bool
}

func (f forgetful) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := f.RoundTripper.RoundTrip(request)
	if err == nil && request.Method == http.MethodPost && f.forgotten.CompareAndSwap(false, true) {
		_ = response.Body.Close()
		return &http.Response{
			StatusCode: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"1"}}, Request: request,
			Body: io.NopCloser(strings.NewReader("")),
		}, nil
	}
	return response, err
}

// TestRequestRepeatedByTheClient has the client library itself repeat a request that took effect: the second answer is
// that the Job exists already, and it must be taken for the one that was asked for.
func TestRequestRepeatedByTheClient(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	namespace := plane.Namespace(t)
	owner := types.NamespacedName{Namespace: namespace, Name: "work"}
	config, forgotten := plane.Config(), &atomic.Bool{}
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return forgetful{rt, forgotten} })
	c := aClient(t, config)
	j := &jobs{store: newStore(), writer: c, reader: c, may: always}
	job, err := j.Create(t.Context(), aPlainJob(owner), nil)
	if err != nil {
		t.Fatal(err)
	}
	var exist batchv1.JobList
	if err := c.List(t.Context(), &exist, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	if !forgotten.Load() || len(exist.Items) != 1 || exist.Items[0].UID != job.UID {
		t.Errorf("%d Jobs exist for one call", len(exist.Items))
	}
}

// counted is a connection that counts the requests to delete something.
type counted struct {
	http.RoundTripper
	deletions *atomic.Int32
}

func (c counted) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method == http.MethodDelete {
		c.deletions.Add(1)
	}
	return c.RoundTripper.RoundTrip(request)
}

// TestDeleteOfAnother has a Job's name taken by another one: that is known at once.
func TestDeleteOfAnother(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	config, deletions := plane.Config(), &atomic.Int32{}
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return counted{rt, deletions} })
	c := aClient(t, config)
	owner := types.NamespacedName{Namespace: plane.Namespace(t), Name: "work"}
	job, err := jobsOn(c).Create(t.Context(), aPlainJob(owner), nil)
	if err != nil {
		t.Fatal(err)
	}
	j, former := jobsOn(c), aNamedJob(owner, job.Name)
	former.UID, former.ResourceVersion = "another", "1"
	j.store.show(owner, trimJob(former)) // no watch has shown its end yet
	if err := j.Delete(t.Context(), job.Namespace, job.Name, "another", metav1.DeletePropagationBackground); err != nil {
		t.Error(err)
	}
	if n := deletions.Load(); n != 1 {
		t.Errorf("it was tried %d times", n)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(job), &batchv1.Job{}); err != nil {
		t.Errorf("the one that has the name: %v", err)
	}
}

// TestRefusedByAWebhook has an admission webhook that cannot be reached: that no Job was made is certain.
func TestRefusedByAWebhook(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	namespace := plane.Namespace(t)
	c := aClient(t, plane.Config())
	hook := &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name:                    "gone.example.org",
			ClientConfig:            admissionregistrationv1.WebhookClientConfig{URL: ptr.To("https://127.0.0.1:1/")},
			NamespaceSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": namespace}},
			SideEffects:             ptr.To(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
			FailurePolicy:           ptr.To(admissionregistrationv1.Fail),
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule: admissionregistrationv1.Rule{
					APIGroups: []string{"batch"}, APIVersions: []string{"v1"}, Resources: []string{"jobs"},
				},
			}},
		}},
	}
	if err := c.Create(t.Context(), hook); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Delete(context.WithoutCancel(t.Context()), hook) })
	owner := types.NamespacedName{Namespace: namespace, Name: "work"}
	j := &jobs{store: newStore(), writer: c, reader: c, may: always}
	eventually(t, "the webhook is called", func() bool {
		_, err := j.Create(t.Context(), aPlainJob(owner), nil)
		return err != nil && strings.Contains(err.Error(), "failed calling webhook")
	})
	if _, err := j.List(t.Context(), owner); err != nil {
		t.Errorf("List: %v", err)
	}
}
