package scaledjob

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// data implements trigger.Objects for the triggers of the ScaledJobs of one namespace.
type data struct {
	objects   Objects
	namespace string
}

var _ trigger.Objects = data{}

func (d data) Data(ctx context.Context, kind, name string) (map[string]string, error) {
	key := types.NamespacedName{Namespace: d.namespace, Name: name}
	switch kind {
	case trigger.ConfigMap:
		configMap, err := d.objects.ConfigMap(ctx, key)
		if err != nil {
			return nil, err
		}
		return configMap.Data, nil
	case trigger.Secret:
		secret, err := d.objects.Secret(ctx, key)
		if err != nil {
			return nil, err
		}
		texts := make(map[string]string, len(secret.Data))
		for name, value := range secret.Data {
			texts[name] = string(value)
		}
		return texts, nil
	default:
		return nil, fmt.Errorf("objects of kind %s cannot be read; give %s or %s", kind, trigger.ConfigMap, trigger.Secret)
	}
}
