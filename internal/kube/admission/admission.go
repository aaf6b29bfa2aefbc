// Package admission is the validating webhook: it says of a ScaledJob, a TriggerAuthentication or a
// ClusterTriggerAuthentication that is written to a cluster what `offboard validate --for cluster` says of its
// manifest.
//
// It looks at nothing but the request. It must not read the cluster, so that it answers in the time of the API server's
// patience whatever else is broken, and it must never stand in the way of a deletion. Its certificates are made by the
// package certs below it.
package admission

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	webhook "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/manifest"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// Path is where the operator serves the webhook.
const Path = "/validate"

// New returns the handler of AdmissionReviews, which knows the given trigger types. It looks at objects whose labels
// the selector takes, as the operator does; nil takes all.
//
// Errors refuse an object, all of them in one answer: as the message, and as the causes of a Status with reason
// Invalid, one a problem, which kubectl prints as it prints the API server's own. Warnings become warnings of the
// answer. An object above manifest.MaxObjectSize is allowed with a warning.
//
// Other kinds and other operations than create and update are allowed unseen, and so is what the selector does not
// take: it is somebody else's, KEDA's for example, who may know more. An update is allowed that leaves the spec as it
// was, whatever the spec says: to remove a finalizer from an object that was written before there was a webhook must
// not fail. Only when the selector takes the object now and did not before, it is looked at like one that is created.
func New(types []trigger.Type, selector labels.Selector) http.Handler {
	if selector == nil {
		selector = labels.Everything()
	}
	return &webhook.Webhook{Handler: &validator{types: types, selector: selector}}
}

type validator struct {
	types    []trigger.Type
	selector labels.Selector
	one      sync.Mutex
}

// Handle answers one request.
func (v *validator) Handle(_ context.Context, request webhook.Request) webhook.Response {
	if !concerns(&request.AdmissionRequest) {
		return webhook.Allowed("")
	}
	object, err := parse(request.Object.Raw)
	if err != nil {
		return webhook.Errored(http.StatusBadRequest, fmt.Errorf("request.object: %w", err))
	}
	if object.metadata.DeletionTimestamp != nil || !v.takes(object) {
		return webhook.Allowed("")
	}
	if request.Operation == admissionv1.Update {
		old, err := parse(request.OldObject.Raw)
		if err != nil {
			return webhook.Errored(http.StatusBadRequest, fmt.Errorf("request.oldObject: %w", err))
		}
		if v.takes(old) && bytes.Equal(object.spec, old.spec) {
			return v.sameSpec(object, old)
		}
	}
	return answer(&request.AdmissionRequest, v.validate(object))
}

// takes tells whether an object is one that the operator looks after.
func (v *validator) takes(object *object) bool {
	return v.selector.Matches(labels.Set(object.metadata.Labels))
}

// validate checks one object at a time, which takes a millisecond. What it may take at worst is bounded by that too:
// the operator's memory is also that of the Jobs it looks after.
func (v *validator) validate(object *object) manifest.Problems {
	v.one.Lock()
	defer v.one.Unlock()
	return manifest.ValidateObject(object.raw, v.types)
}

// sameSpec allows an update of the metadata, and warns of annotations that are wrong if it was those that changed.
func (v *validator) sameSpec(object, old *object) webhook.Response {
	response := webhook.Allowed("")
	if maps.Equal(object.metadata.Annotations, old.metadata.Annotations) {
		return response
	}
	for _, problem := range v.validate(object) {
		if strings.HasPrefix(problem.Field, "metadata.annotations") {
			response.Warnings = append(response.Warnings, problem.Text())
		}
	}
	return response
}

// concerns tells whether a request writes an object that Offboard has an opinion on.
func concerns(request *admissionv1.AdmissionRequest) bool {
	kinds := []string{v1alpha1.KindScaledJob, v1alpha1.KindTriggerAuthentication,
		v1alpha1.KindClusterTriggerAuthentication}
	return (request.Operation == admissionv1.Create || request.Operation == admissionv1.Update) &&
		request.SubResource == "" && request.Kind.Group == v1alpha1.Group && request.Kind.Version == v1alpha1.Version &&
		slices.Contains(kinds, request.Kind.Kind)
}

// object is what the webhook itself needs to know of an object.
type object struct {
	raw      []byte
	metadata struct {
		DeletionTimestamp *metav1.Time      `json:"deletionTimestamp"`
		Labels            map[string]string `json:"labels"`
		Annotations       map[string]string `json:"annotations"`
	}
	spec []byte // an API server always writes an equal spec in equal bytes
}

func parse(raw []byte) (*object, error) {
	var fields struct {
		Metadata json.RawMessage `json:"metadata"`
		Spec     json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("got no object: %w", err)
	}
	parsed := &object{raw: raw, spec: fields.Spec}
	if len(fields.Metadata) > 0 {
		if err := json.Unmarshal(fields.Metadata, &parsed.metadata); err != nil {
			return nil, fmt.Errorf("metadata: %w", err)
		}
	}
	return parsed, nil
}
