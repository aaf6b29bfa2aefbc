// Package objects is what stands for an API server on one machine: the ScaledJobs and what they refer to, read from
// manifest files that are watched, with the identity and the status of each ScaledJob kept on disk.
//
// It implements the controller's Objects port. It knows nothing of Jobs or queues.
package objects

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/manifest"
)

// AnnotationFolder on a ScaledJob, and so on its Jobs, is the folder of the manifest: where its containers work unless
// they name a workingDir, so that a command may be given relative to the manifest.
const AnnotationFolder = "offboard.dev/folder"

// Options say what a Store holds.
type Options struct {
	// Paths are the manifest files and folders.
	Paths []string
	// Dir is the folder that keeps the records of the ScaledJobs.
	Dir string
	// Validate returns everything that is wrong with what was read; what has an error is not used.
	Validate func(*manifest.Set) manifest.Problems
	Log      *slog.Logger
}

// Store holds the objects. What it returns is shared and never modified.
type Store struct {
	paths    []string
	dir      string
	validate func(*manifest.Set) manifest.Problems
	log      *slog.Logger
	// settle is settleTime, but in tests of what must come within it.
	settle time.Duration

	mu      sync.RWMutex
	files   map[string]*file
	content content
	records map[types.NamespacedName]*record
	// gone are deleted ScaledJobs that were released since the last Change; released then holds an element.
	gone     []*v1alpha1.ScaledJob
	released chan struct{}

	// unreadable are the paths that could not be read last time, which was told. Only whoever reads the files uses it.
	unreadable map[string]bool
}

// content are the objects in force.
type content struct {
	scaledJobs   map[types.NamespacedName]*v1alpha1.ScaledJob
	secrets      map[types.NamespacedName]*corev1.Secret
	configMaps   map[types.NamespacedName]*corev1.ConfigMap
	auths        map[types.NamespacedName]*v1alpha1.TriggerAuthentication
	clusterAuths map[string]*v1alpha1.ClusterTriggerAuthentication
}

// Change is what a reload has led to.
type Change struct {
	// Changed are the ScaledJobs that are new or different, or deleted and kept by their finalizer.
	Changed []types.NamespacedName
	// Removed are the ScaledJobs that are gone for good, as they were. There may be another one of that name in Changed.
	Removed []*v1alpha1.ScaledJob
	// References tells that a Secret, a ConfigMap or an authentication is new, different or gone.
	References bool
}

// Open reads the manifests. Problems are returned also when there is no error; an error among them keeps the Store
// from opening, since there is no last good manifest yet that could stay in force.
func Open(opts Options) (*Store, manifest.Problems, error) {
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the folder of the ScaledJobs' records: %w", err)
	}
	s := &Store{
		paths: opts.Paths, dir: opts.Dir, validate: opts.Validate, log: opts.Log, settle: settleTime,
		records: map[types.NamespacedName]*record{}, unreadable: map[string]bool{}, released: make(chan struct{}, 1),
		content: content{scaledJobs: map[types.NamespacedName]*v1alpha1.ScaledJob{}},
	}
	if err := s.cleanUp(); err != nil {
		return nil, nil, err
	}
	if err := s.loadDeleted(); err != nil {
		return nil, nil, err
	}
	set := manifest.Read(nil, s.paths...)
	problems := s.validate(set)
	if problems.HasErrors() {
		return nil, problems, nil
	}
	s.files = s.readFiles(nil)
	if _, err := s.use(s.merged(s.files)); err != nil {
		return nil, problems, err
	}
	return s, problems, nil
}

// use puts the objects of the set in force and returns what that changes.
func (s *Store) use(set *manifest.Set) (Change, error) {
	next := content{
		scaledJobs:   map[types.NamespacedName]*v1alpha1.ScaledJob{},
		secrets:      byKey[*corev1.Secret](set),
		configMaps:   byKey[*corev1.ConfigMap](set),
		auths:        byKey[*v1alpha1.TriggerAuthentication](set),
		clusterAuths: map[string]*v1alpha1.ClusterTriggerAuthentication{},
	}
	for _, auth := range manifest.All[*v1alpha1.ClusterTriggerAuthentication](set) {
		next.clusterAuths[auth.Name] = auth
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var change Change
	for document, read := range manifest.All[*v1alpha1.ScaledJob](set) {
		key := keyOf(read)
		if s.waits(key) {
			continue
		}
		sj, err := s.admit(key, read, document.File)
		if err != nil {
			return Change{}, err
		}
		next.scaledJobs[key] = sj
		if before := s.content.scaledJobs[key]; before == nil || !same(before, sj) {
			change.Changed = append(change.Changed, key)
		}
	}
	removed, err := s.removedBy(&next, &change)
	if err != nil {
		return Change{}, err
	}
	next.retain(&s.content)
	for key, gone := range removed {
		change.Removed = append(change.Removed, gone)
		delete(s.records, key)
		if err := os.Remove(s.recordPath(key)); err != nil {
			s.log.Warn("The record of a removed ScaledJob stays on disk", "scaledjob", key.String(), "error", err)
		}
	}
	change.Removed = append(change.Removed, s.gone...)
	s.gone = nil
	change.References = !reflect.DeepEqual(s.content.secrets, next.secrets) ||
		!reflect.DeepEqual(s.content.configMaps, next.configMaps) ||
		!reflect.DeepEqual(s.content.auths, next.auths) || !reflect.DeepEqual(s.content.clusterAuths, next.clusterAuths)
	s.content = next
	return change, nil
}

// removedBy returns the ScaledJobs that are not in next and go for good. Those that a finalizer keeps are put there.
func (s *Store) removedBy(
	next *content, change *Change,
) (map[types.NamespacedName]*v1alpha1.ScaledJob, error) {
	removed := map[types.NamespacedName]*v1alpha1.ScaledJob{}
	for key, before := range s.content.scaledJobs {
		if next.scaledJobs[key] != nil {
			continue
		}
		switch {
		case before.DeletionTimestamp != nil:
			next.scaledJobs[key] = before
		case s.records[key].Settles:
			deleted, err := s.delete(key, before)
			if err != nil {
				return nil, err
			}
			next.scaledJobs[key] = deleted
			change.Changed = append(change.Changed, key)
		default:
			removed[key] = before
		}
	}
	return removed, nil
}

// admit makes the object of a ScaledJob that was read from a file.
func (s *Store) admit(key types.NamespacedName, read *v1alpha1.ScaledJob, file string) (*v1alpha1.ScaledJob, error) {
	r := s.records[key]
	if r == nil {
		var err error
		if r, err = s.load(key); err != nil {
			return nil, err
		}
		s.records[key] = r
	}
	sj := read.DeepCopy()
	folder, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, fmt.Errorf("find the folder of %s: %w", file, err)
	}
	if sj.Annotations[AnnotationFolder] == "" {
		metav1.SetMetaDataAnnotation(&sj.ObjectMeta, AnnotationFolder, folder)
	}
	r.declare(sj, file)
	changed, err := r.adopt(sj)
	if err == nil && changed {
		err = s.save(key, r)
	}
	return sj, err
}

// same tells whether two versions of a ScaledJob ask for the same.
func same(a, b *v1alpha1.ScaledJob) bool {
	return a.Generation == b.Generation && maps.Equal(a.Annotations, b.Annotations) && maps.Equal(a.Labels, b.Labels)
}

func keyOf(object metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetName()}
}

func byKey[T interface {
	metav1.Object
	runtime.Object
}](set *manifest.Set) map[types.NamespacedName]T {
	objects := map[types.NamespacedName]T{}
	for _, object := range manifest.All[T](set) {
		objects[keyOf(object)] = object
	}
	return objects
}

// List returns the ScaledJobs, ordered by namespace and name.
func (s *Store) List() []*v1alpha1.ScaledJob {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.SortedFunc(maps.Values(s.content.scaledJobs), func(a, b *v1alpha1.ScaledJob) int {
		return slices.Compare([]string{a.Namespace, a.Name}, []string{b.Namespace, b.Name})
	})
}

// ScaledJob returns one ScaledJob with its status.
func (s *Store) ScaledJob(_ context.Context, key types.NamespacedName) (*v1alpha1.ScaledJob, error) {
	return get(s, func(c *content) *v1alpha1.ScaledJob { return c.scaledJobs[key] }, v1alpha1.Group, "scaledjobs", key)
}

// Secret returns one Secret.
func (s *Store) Secret(_ context.Context, key types.NamespacedName) (*corev1.Secret, error) {
	return get(s, func(c *content) *corev1.Secret { return c.secrets[key] }, "", "secrets", key)
}

// ConfigMap returns one ConfigMap.
func (s *Store) ConfigMap(_ context.Context, key types.NamespacedName) (*corev1.ConfigMap, error) {
	return get(s, func(c *content) *corev1.ConfigMap { return c.configMaps[key] }, "", "configmaps", key)
}

// TriggerAuthentication returns one TriggerAuthentication.
func (s *Store) TriggerAuthentication(
	_ context.Context, key types.NamespacedName,
) (*v1alpha1.TriggerAuthentication, error) {
	return get(s, func(c *content) *v1alpha1.TriggerAuthentication { return c.auths[key] },
		v1alpha1.Group, "triggerauthentications", key)
}

// ClusterTriggerAuthentication returns one ClusterTriggerAuthentication.
func (s *Store) ClusterTriggerAuthentication(
	_ context.Context, name string,
) (*v1alpha1.ClusterTriggerAuthentication, error) {
	return get(s, func(c *content) *v1alpha1.ClusterTriggerAuthentication { return c.clusterAuths[name] },
		v1alpha1.Group, "clustertriggerauthentications", types.NamespacedName{Name: name})
}

// ServiceAccountToken returns an error: who a service account is, only a cluster can vouch for.
func (s *Store) ServiceAccountToken(
	context.Context, types.NamespacedName, time.Duration,
) (*authenticationv1.TokenRequestStatus, error) {
	return nil, errors.New(NoServiceAccounts)
}

// NoServiceAccounts says why there are no tokens of service accounts.
const NoServiceAccounts = "one machine has no service accounts, which only a cluster has: " +
	"give the parameter with secretTargetRef here, or a token in a file"

func get[T any](
	s *Store, find func(*content) *T, group, resource string, key types.NamespacedName,
) (*T, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if found := find(&s.content); found != nil {
		return found, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Group: group, Resource: resource}, key.Name)
}

// UpdateStatus keeps the ScaledJob's status, in memory and on disk. A ScaledJob that is gone, or another one of that
// name, is not found.
func (s *Store) UpdateStatus(_ context.Context, sj *v1alpha1.ScaledJob) error {
	key := keyOf(sj)
	s.mu.Lock()
	defer s.mu.Unlock()
	current, r := s.content.scaledJobs[key], s.records[key]
	if current == nil || current.UID != sj.UID {
		return apierrors.NewNotFound(schema.GroupResource{Group: v1alpha1.Group, Resource: "scaledjobs"}, key.Name)
	}
	updated := current.DeepCopy()
	updated.Status = *sj.Status.DeepCopy()
	s.content.scaledJobs[key] = updated
	r.Status = updated.Status
	return s.save(key, r)
}

// Known tells whether there is a ScaledJob of that name or a record of one, which is not among the manifests now.
func (s *Store) Known(key types.NamespacedName) (bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.records[key] != nil {
		return true, nil
	}
	_, err := os.Stat(s.recordPath(key))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the record of ScaledJob %s: %w", key, err)
	}
	return true, nil
}

// Totals returns how many finished Jobs of the ScaledJob its history no longer holds.
func (s *Store) Totals(key types.NamespacedName) Totals {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if r := s.records[key]; r != nil {
		return r.Totals
	}
	return Totals{}
}

// Count adds to the totals of the ScaledJob with that UID; one that is gone needs none.
func (s *Store) Count(key types.NamespacedName, uid types.UID, more Totals) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.records[key]
	if r == nil || r.UID != uid {
		return nil
	}
	r.Totals.Succeeded += more.Succeeded
	r.Totals.Failed += more.Failed
	return s.save(key, r)
}
