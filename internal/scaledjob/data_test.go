package scaledjob

import (
	"context"
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// shelf has one ConfigMap and one Secret.
type shelf struct {
	Objects
	key types.NamespacedName
}

func (s shelf) ConfigMap(_ context.Context, key types.NamespacedName) (*corev1.ConfigMap, error) {
	if key != s.key {
		return nil, notFound("configmaps", key.Name)
	}
	return &corev1.ConfigMap{Data: map[string]string{"a": "1"}, BinaryData: map[string][]byte{"b": nil}}, nil
}

func (s shelf) Secret(_ context.Context, key types.NamespacedName) (*corev1.Secret, error) {
	if key != s.key {
		return nil, notFound("secrets", key.Name)
	}
	return &corev1.Secret{Data: map[string][]byte{"a": []byte("2")}}, nil
}

func TestTriggersReadTheirOwnNamespace(t *testing.T) {
	t.Parallel()
	objects := shelf{key: types.NamespacedName{Namespace: "team", Name: "queue"}}
	for kind, want := range map[string]map[string]string{"ConfigMap": {"a": "1"}, "Secret": {"a": "2"}} {
		got, err := data{objects, "team"}.Data(t.Context(), kind, "queue")
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: got %v, %v; want %v", kind, got, err, want)
		}
		if got, err := (data{objects, "other"}).Data(t.Context(), kind, "queue"); err == nil {
			t.Errorf("%s of another namespace: got %v", kind, got)
		}
	}
	if _, err := (data{objects, "team"}).Data(t.Context(), "Pod", "queue"); err == nil ||
		!strings.Contains(err.Error(), "give ConfigMap or Secret") {
		t.Errorf("a Pod: error %v", err)
	}
}
