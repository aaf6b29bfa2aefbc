package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/auth/lease"
	"github.com/offboard-dev/offboard/internal/auth/vault"
)

// Objects reads what an authenticationRef leads to. An object that does not exist gives an error for which
// k8s.io/apimachinery/pkg/api/errors.IsNotFound is true. Objects are as the API server stores them: the stringData of a
// Secret is part of its data. They are only read.
type Objects interface {
	Secret(ctx context.Context, key types.NamespacedName) (*corev1.Secret, error)
	ConfigMap(ctx context.Context, key types.NamespacedName) (*corev1.ConfigMap, error)
	TriggerAuthentication(ctx context.Context, key types.NamespacedName) (*v1alpha1.TriggerAuthentication, error)
	ClusterTriggerAuthentication(ctx context.Context, name string) (*v1alpha1.ClusterTriggerAuthentication, error)
	// ServiceAccountToken asks for a new token of the service account that is valid for about as long as life; what comes
	// back says for how long it is.
	ServiceAccountToken(
		ctx context.Context, key types.NamespacedName, life time.Duration,
	) (*authenticationv1.TokenRequestStatus, error)
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

// Request says what is to be resolved, and with what.
type Request struct {
	// Ref is what leads to the parameters; nil means that there are none.
	Ref        *v1alpha1.AuthenticationRef
	Objects    Objects
	Namespaces Namespaces
	Env        EnvFunc
	// Files is the folder that filePath is relative to; empty means that none may be read.
	Files string
	// Doubted tells that what was resolved before does not work any more, so that what is kept from then, if it is older
	// than a minute, is obtained anew.
	Doubted bool
	// Aside runs what waits for a server other than the cluster's; nil means that nobody else minds.
	Aside func(func())
}

// Parameters are what an authenticationRef leads to.
type Parameters struct {
	// Values are the parameters by name.
	Values map[string]string
	// Until is when they should be resolved again, because some of them end or nobody tells when they change; zero when
	// there are no such.
	Until time.Time
}

// until brings the time forward.
func (p *Parameters) until(t time.Time) {
	if !t.IsZero() && (p.Until.IsZero() || t.Before(p.Until)) {
		p.Until = t
	}
}

// rereadEvery is how often values are read again of whose changes nobody tells: those of files and of Vault.
const rereadEvery = 5 * time.Minute

// Resolver resolves, and keeps tokens from one time to the next. The zero value has none yet.
type Resolver struct {
	tokens lease.Values[types.NamespacedName, string]
	vault  vault.Reader
}

// Resolve returns the parameters that the reference leads to. Where one parameter is named several times, the later
// source of this list wins, and in one source the later entry, as in KEDA: env, configMapTargetRef, secretTargetRef,
// hashiCorpVault, boundServiceAccountToken. A filePath stands in place of all others.
//
// An error names the authentication, the field, the parameter, and what is missing; it wraps the error of Objects or
// Env.
func (r *Resolver) Resolve(ctx context.Context, request Request) (Parameters, error) {
	ref := request.Ref
	if ref == nil {
		return Parameters{Values: map[string]string{}}, nil
	}
	if ref.Name == "" {
		return Parameters{}, errors.New("authenticationRef has no name; name a TriggerAuthentication")
	}
	s := resolver{Request: request, kept: r, environments: map[string]map[string]string{}}
	kind := cmp.Or(ref.Kind, v1alpha1.KindTriggerAuthentication)
	var (
		spec  *v1alpha1.TriggerAuthenticationSpec
		named string
	)
	switch kind {
	case v1alpha1.KindTriggerAuthentication:
		s.namespace = request.Namespaces.Own
		named = fmt.Sprintf("%s %q", kind, s.namespace+"/"+ref.Name)
		key := types.NamespacedName{Namespace: s.namespace, Name: ref.Name}
		object, err := request.Objects.TriggerAuthentication(ctx, key)
		if err != nil {
			return Parameters{}, unread(named, err)
		}
		spec = &object.Spec
	case v1alpha1.KindClusterTriggerAuthentication:
		s.namespace = request.Namespaces.Cluster
		named = fmt.Sprintf("%s %q", kind, ref.Name)
		object, err := request.Objects.ClusterTriggerAuthentication(ctx, ref.Name)
		if err != nil {
			return Parameters{}, unread(named, err)
		}
		spec = &object.Spec
	default:
		return Parameters{}, fmt.Errorf("authenticationRef.kind is %q; it must be %s or %s",
			kind, v1alpha1.KindTriggerAuthentication, v1alpha1.KindClusterTriggerAuthentication)
	}
	s.params.Values = map[string]string{}
	if err := s.resolve(ctx, kind, spec); err != nil {
		return Parameters{}, fmt.Errorf("%s: %w", named, err)
	}
	return s.params, nil
}

// resolver resolves one reference.
type resolver struct {
	Request
	kept         *Resolver
	namespace    string // of what the authentication refers to
	environments map[string]map[string]string
	params       Parameters
}

func (r *resolver) resolve(ctx context.Context, kind string, spec *v1alpha1.TriggerAuthenticationSpec) error {
	if err := refuseUnsupported(spec); err != nil {
		return err
	}
	if problems := Check(kind, spec); len(problems) > 0 {
		return problems[0]
	}
	if spec.FilePath != "" {
		return r.fromFile(spec.FilePath)
	}
	if err := each(r, "env", spec.Env, func(source v1alpha1.AuthEnvironment) (string, string, error) {
		value, err := r.fromEnv(source)
		return source.Parameter, value, err
	}); err != nil {
		return err
	}
	if err := each(r, "configMapTargetRef", spec.ConfigMapTargetRef, r.with(ctx, r.fromConfigMap)); err != nil {
		return err
	}
	if err := each(r, "secretTargetRef", spec.SecretTargetRef, r.with(ctx, r.fromSecret)); err != nil {
		return err
	}
	if err := r.fromVault(ctx, spec.HashiCorpVault); err != nil {
		return err
	}
	return each(r, "boundServiceAccountToken", spec.BoundServiceAccountToken,
		func(source v1alpha1.BoundServiceAccountToken) (string, string, error) {
			value, due, err := r.serviceAccountToken(ctx, r.namespace, source.ServiceAccountName)
			r.params.until(due)
			return source.Parameter, value, err
		})
}

// each takes one parameter from each entry of a source.
func each[T any](r *resolver, field string, entries []T, value func(T) (string, string, error)) error {
	for i, entry := range entries {
		parameter, value, err := value(entry)
		if err != nil {
			return fmt.Errorf("%s[%d] (parameter %q): %w", field, i, parameter, err)
		}
		r.params.Values[parameter] = value
	}
	return nil
}

func (r *resolver) with(
	ctx context.Context, value func(context.Context, v1alpha1.AuthTargetRef) (string, error),
) func(v1alpha1.AuthTargetRef) (string, string, error) {
	return func(ref v1alpha1.AuthTargetRef) (string, string, error) {
		value, err := value(ctx, ref)
		return ref.Parameter, value, err
	}
}

func (r *resolver) fromSecret(ctx context.Context, ref v1alpha1.AuthTargetRef) (string, error) {
	named := r.describe("Secret", ref.Name)
	secret, err := r.Objects.Secret(ctx, types.NamespacedName{Namespace: r.namespace, Name: ref.Name})
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
	configMap, err := r.Objects.ConfigMap(ctx, types.NamespacedName{Namespace: r.namespace, Name: ref.Name})
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
		if environment, err = r.Env(source.ContainerName); err != nil {
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
