package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// Objects reads what an authenticationRef leads to. An object that does not exist gives an error for which
// k8s.io/apimachinery/pkg/api/errors.IsNotFound is true. Objects are as the API server stores them: the stringData of a
// Secret is part of its data. They are only read.
type Objects interface {
	Secret(ctx context.Context, key types.NamespacedName) (*corev1.Secret, error)
	ConfigMap(ctx context.Context, key types.NamespacedName) (*corev1.ConfigMap, error)
	TriggerAuthentication(ctx context.Context, key types.NamespacedName) (*v1alpha1.TriggerAuthentication, error)
	ClusterTriggerAuthentication(ctx context.Context, name string) (*v1alpha1.ClusterTriggerAuthentication, error)
}

// Namespaces say where objects are looked up.
type Namespaces struct {
	// Own is the ScaledJob's namespace: that of its TriggerAuthentications and of what they refer to.
	Own string
	// Cluster is where ClusterTriggerAuthentications refer to; KEDA's default is keda.
	Cluster string
}

// EnvFunc returns the environment of the Job's container of that name, or of its first container when the name is
// empty. It is called at most once for a name, and only for names that are needed.
type EnvFunc func(container string) (map[string]string, error)

// Resolve returns the parameters that ref leads to, by name; none for a nil ref. Where one parameter is named several
// times, secretTargetRef wins over configMapTargetRef, that over env, and a later entry over an earlier one, as KEDA
// does it.
//
// An error names the authentication, the field, the parameter, and what is missing; it wraps the error of objects or
// env.
func Resolve(
	ctx context.Context, objects Objects, namespaces Namespaces, ref *v1alpha1.AuthenticationRef, env EnvFunc,
) (map[string]string, error) {
	if ref == nil {
		return map[string]string{}, nil
	}
	if ref.Name == "" {
		return nil, errors.New("authenticationRef has no name; name a TriggerAuthentication")
	}
	r := resolver{objects: objects, env: env, environments: map[string]map[string]string{}}
	var (
		spec  *v1alpha1.TriggerAuthenticationSpec
		named string
	)
	switch ref.Kind {
	case "", v1alpha1.KindTriggerAuthentication:
		r.namespace = namespaces.Own
		named = fmt.Sprintf("%s %q", v1alpha1.KindTriggerAuthentication, r.namespace+"/"+ref.Name)
		key := types.NamespacedName{Namespace: r.namespace, Name: ref.Name}
		object, err := objects.TriggerAuthentication(ctx, key)
		if err != nil {
			return nil, unread(named, err)
		}
		spec = &object.Spec
	case v1alpha1.KindClusterTriggerAuthentication:
		r.namespace = namespaces.Cluster
		named = fmt.Sprintf("%s %q", v1alpha1.KindClusterTriggerAuthentication, ref.Name)
		object, err := objects.ClusterTriggerAuthentication(ctx, ref.Name)
		if err != nil {
			return nil, unread(named, err)
		}
		spec = &object.Spec
	default:
		return nil, fmt.Errorf("authenticationRef.kind is %q; it must be %s or %s",
			ref.Kind, v1alpha1.KindTriggerAuthentication, v1alpha1.KindClusterTriggerAuthentication)
	}
	params, err := r.resolve(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", named, err)
	}
	return params, nil
}

type resolver struct {
	objects      Objects
	namespace    string
	env          EnvFunc
	environments map[string]map[string]string
}

func (r *resolver) resolve(ctx context.Context, spec *v1alpha1.TriggerAuthenticationSpec) (map[string]string, error) {
	params := map[string]string{}
	for i, source := range spec.Env {
		value, err := r.fromEnv(source)
		if err != nil {
			return nil, entryError("env", i, source.Parameter, err)
		}
		params[source.Parameter] = value
	}
	for i, source := range spec.ConfigMapTargetRef {
		value, err := r.fromConfigMap(ctx, source)
		if err != nil {
			return nil, entryError("configMapTargetRef", i, source.Parameter, err)
		}
		params[source.Parameter] = value
	}
	for i, source := range spec.SecretTargetRef {
		value, err := r.fromSecret(ctx, source)
		if err != nil {
			return nil, entryError("secretTargetRef", i, source.Parameter, err)
		}
		params[source.Parameter] = value
	}
	return params, nil
}

func entryError(field string, i int, parameter string, err error) error {
	return fmt.Errorf("%s[%d] (parameter %q): %w", field, i, parameter, err)
}

func (r *resolver) fromSecret(ctx context.Context, ref v1alpha1.AuthTargetRef) (string, error) {
	named := r.describe("Secret", ref.Name)
	secret, err := r.objects.Secret(ctx, types.NamespacedName{Namespace: r.namespace, Name: ref.Name})
	if err != nil {
		return "", unread(named, err)
	}
	value, found := secret.Data[ref.Key]
	if !found {
		return "", noKey(named, ref.Key, slices.Sorted(maps.Keys(secret.Data)))
	}
	return string(value), nil
}

func (r *resolver) fromConfigMap(ctx context.Context, ref v1alpha1.AuthTargetRef) (string, error) {
	named := r.describe("ConfigMap", ref.Name)
	configMap, err := r.objects.ConfigMap(ctx, types.NamespacedName{Namespace: r.namespace, Name: ref.Name})
	if err != nil {
		return "", unread(named, err)
	}
	value, found := configMap.Data[ref.Key]
	if !found {
		return "", noKey(named, ref.Key, slices.Sorted(maps.Keys(configMap.Data)))
	}
	return value, nil
}

func (r *resolver) fromEnv(source v1alpha1.AuthEnvironment) (string, error) {
	environment, known := r.environments[source.ContainerName]
	if !known {
		var err error
		if environment, err = r.env(source.ContainerName); err != nil {
			return "", err
		}
		r.environments[source.ContainerName] = environment
	}
	value, found := environment[source.Name]
	if !found {
		where := "the Job's container"
		if source.ContainerName != "" {
			where = fmt.Sprintf("the Job's container %q", source.ContainerName)
		}
		return "", fmt.Errorf("%s has no environment variable %q that is known before it runs; "+
			"add it to the container's env, or correct the name", where, source.Name)
	}
	return value, nil
}

// describe names an object for an error.
func (r *resolver) describe(kind, name string) string {
	return fmt.Sprintf("%s %q", kind, r.namespace+"/"+name)
}

func unread(named string, err error) error {
	if apierrors.IsNotFound(err) {
		return &missingError{what: named + " does not exist; create it, or correct the name", cause: err}
	}
	return fmt.Errorf("reading %s: %w", named, err)
}

// missingError says in our words what the error of Objects says in others, and keeps that one for errors.As.
type missingError struct {
	what  string
	cause error
}

func (e *missingError) Error() string { return e.what }
func (e *missingError) Unwrap() error { return e.cause }

func noKey(named, key string, keys []string) error {
	if len(keys) == 0 {
		return fmt.Errorf("%s has no key %q; it has no keys", named, key)
	}
	const most = 10
	more := ""
	if len(keys) > most {
		more = fmt.Sprintf(" and %d more", len(keys)-most)
		keys = keys[:most]
	}
	quoted := make([]string, len(keys))
	for i, k := range keys {
		quoted[i] = fmt.Sprintf("%q", k)
	}
	return fmt.Errorf("%s has no key %q; its keys are %s%s", named, key, strings.Join(quoted, ", "), more)
}
