package charts

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// foreign are the kinds of the Prometheus operator, whose types are not at hand: their fields are not checked.
var foreign = map[string]bool{"ServiceMonitor": true, "PrometheusRule": true}

// clusterScoped are the kinds that belong to no namespace.
var clusterScoped = map[string]bool{
	"ClusterRole": true, "ClusterRoleBinding": true, "CustomResourceDefinition": true, "Namespace": true,
	"ValidatingWebhookConfiguration": true,
}

// objects are what a chart renders.
type objects []client.Object

// decode reads rendered manifests strictly: a field that the object's type does not have, or one given twice, fails the
// test.
func decode(t *testing.T, text string) objects {
	t.Helper()
	known := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		scheme.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(known); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(known, serializer.EnableStrict).UniversalDeserializer()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	var all objects
	seen := map[string]bool{}
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		object := decodeOne(t, decoder, document)
		if object == nil {
			continue
		}
		kind := object.GetObjectKind().GroupVersionKind().Kind
		id := fmt.Sprintf("%s %s/%s", kind, object.GetNamespace(), object.GetName())
		if seen[id] {
			t.Errorf("%s is rendered twice", id)
		}
		seen[id] = true
		if clusterScoped[kind] != (object.GetNamespace() == "") {
			t.Errorf("%s: a namespace is missing or too much", id)
		}
		all = append(all, object)
	}
}

// decodeOne returns nil for a document that holds nothing but comments.
func decodeOne(t *testing.T, decoder runtime.Decoder, document []byte) client.Object {
	t.Helper()
	var content map[string]any
	if err := yaml.UnmarshalStrict(document, &content); err != nil {
		t.Fatalf("%v:\n%s", err, document)
	}
	if len(content) == 0 {
		return nil
	}
	if kind, _ := content["kind"].(string); foreign[kind] {
		return &unstructured.Unstructured{Object: content}
	}
	decoded, _, err := decoder.Decode(document, nil, nil)
	if err != nil {
		t.Fatalf("%v:\n%s", err, bytes.TrimSpace(document))
	}
	object, ok := decoded.(client.Object)
	if !ok {
		t.Fatalf("%T is no object", decoded)
	}
	return object
}

// of returns the objects of a type.
func of[T client.Object](all objects) []T {
	var found []T
	for _, object := range all {
		if typed, ok := object.(T); ok {
			found = append(found, typed)
		}
	}
	return found
}

// one returns the only object of a type.
func one[T client.Object](t *testing.T, all objects) T {
	t.Helper()
	found := of[T](all)
	if len(found) != 1 {
		t.Fatalf("got %d %s, want one", len(found), reflect.TypeFor[T]())
	}
	return found[0]
}

// restricted wants a Pod template to ask for what the Pod security standard "restricted" demands.
func restricted(t *testing.T, pod *corev1.PodSpec) {
	t.Helper()
	context := pod.SecurityContext
	if context == nil || context.RunAsNonRoot == nil || !*context.RunAsNonRoot || context.SeccompProfile == nil ||
		context.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the Pod's security context is %v", context)
	}
	if pod.HostNetwork || pod.HostPID || pod.HostIPC {
		t.Error("the Pod shares the host's namespaces")
	}
	for _, container := range pod.Containers {
		own := container.SecurityContext
		if own == nil || own.AllowPrivilegeEscalation == nil || *own.AllowPrivilegeEscalation || own.Capabilities == nil ||
			len(own.Capabilities.Drop) != 1 || own.Capabilities.Drop[0] != "ALL" || len(own.Capabilities.Add) > 0 {
			t.Errorf("the security context of container %s is %v", container.Name, own)
		}
	}
	for _, volume := range pod.Volumes {
		if volume.HostPath != nil {
			t.Errorf("volume %s is a path of the host", volume.Name)
		}
	}
}
