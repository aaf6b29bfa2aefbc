package objects

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// A ScaledJob with v1alpha1.FinalizerSettle that is removed from the manifests is deleted, as on a cluster: it stays in
// force with a deletion timestamp, from its record, until SetFinalizer takes the finalizer off. Only then it is gone,
// which the next Change tells, and only then another one of its name comes into force.

// SetFinalizer puts v1alpha1.FinalizerSettle on the ScaledJob or takes it off; when it returns, that is on disk. Where
// the ScaledJob is gone, or there is another one of its name, to take it off is no error; to put it on gives a NotFound
// API error, since nothing would keep that ScaledJob.
func (s *Store) SetFinalizer(_ context.Context, sj *v1alpha1.ScaledJob, present bool) error {
	key := keyOf(sj)
	s.mu.Lock()
	defer s.mu.Unlock()
	current, r := s.content.scaledJobs[key], s.records[key]
	switch {
	case current == nil || current.UID != sj.UID:
		if present {
			return apierrors.NewNotFound(v1alpha1.Resource("scaledjobs"), key.Name)
		}
		return nil
	case r.Settles == present:
		return nil
	case r.Deleted != nil:
		return s.release(key, current)
	}
	r.Settles = present
	if err := s.save(key, r); err != nil {
		r.Settles = !present
		return err
	}
	updated := current.DeepCopy()
	r.finalize(updated)
	s.content.scaledJobs[key] = updated
	return nil
}

// release lets go of a deleted ScaledJob; mu is held.
func (s *Store) release(key types.NamespacedName, deleted *v1alpha1.ScaledJob) error {
	if err := os.Remove(s.recordPath(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the record of ScaledJob %s: %w", key, err)
	}
	delete(s.records, key)
	delete(s.content.scaledJobs, key)
	s.gone = append(s.gone, deleted)
	select {
	case s.released <- struct{}{}:
	default: // Watch has not looked yet
	}
	return nil
}

// delete keeps a ScaledJob that is no longer among the manifests, for its finalizer; mu is held.
func (s *Store) delete(key types.NamespacedName, current *v1alpha1.ScaledJob) (*v1alpha1.ScaledJob, error) {
	r := s.records[key]
	deleted := current.DeepCopy()
	deleted.DeletionTimestamp = ptr.To(metav1.Now().Rfc3339Copy())
	deleted.DeletionGracePeriodSeconds = ptr.To[int64](0)
	if r.Deleted != nil { // and that of another one failed, so that no Change told of it
		deleted.DeletionTimestamp = r.Deleted.DeletionTimestamp
		return deleted, nil
	}
	r.Deleted = deleted.DeepCopy()
	r.Deleted.Status = v1alpha1.ScaledJobStatus{} // the record has it
	if err := s.save(key, r); err != nil {
		r.Deleted = nil
		return nil, err
	}
	return deleted, nil
}

// waits tells whether a ScaledJob of the manifests has to wait for another one of its name to go; mu is held.
func (s *Store) waits(key types.NamespacedName) bool {
	r := s.records[key]
	if r == nil || r.Deleted == nil {
		return false
	}
	if !r.waitTold {
		s.log.Info("ScaledJob is in the manifests again; it comes into force when the one before it has been released",
			"scaledjob", key.String())
	}
	r.waitTold = true
	return true
}

// finalize makes the ScaledJob's metadata say what the record does, and not what a manifest has that was copied from
// somewhere else.
func (r *record) finalize(sj *v1alpha1.ScaledJob) {
	finalizers := slices.DeleteFunc(slices.Clone(sj.Finalizers), func(name string) bool {
		return name == v1alpha1.FinalizerSettle
	})
	if r.Settles {
		finalizers = append(finalizers, v1alpha1.FinalizerSettle)
	}
	sj.Finalizers = finalizers
}

// loadDeleted puts the ScaledJobs in force that were deleted and not released.
func (s *Store) loadDeleted() error {
	namespaces, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("look for deleted ScaledJobs: %w", err)
	}
	for _, namespace := range namespaces {
		if !namespace.IsDir() {
			continue
		}
		files, err := os.ReadDir(filepath.Join(s.dir, namespace.Name()))
		if err != nil {
			return fmt.Errorf("look for deleted ScaledJobs: %w", err)
		}
		for _, file := range files {
			if name, isRecord := strings.CutSuffix(file.Name(), recordSuffix); isRecord {
				key := types.NamespacedName{Namespace: namespace.Name(), Name: name}
				if err := s.loadIfDeleted(key); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s *Store) loadIfDeleted(key types.NamespacedName) error {
	data, err := os.ReadFile(s.recordPath(key))
	if err != nil {
		return fmt.Errorf("read the record of ScaledJob %s: %w", key, err)
	}
	var r record
	if json.Unmarshal(data, &r) != nil || r.Deleted == nil {
		return nil // a broken one is set aside if its ScaledJob is among the manifests
	}
	deleted := r.Deleted.DeepCopy()
	if keyOf(deleted) != key || r.UID == "" || deleted.UID != r.UID || deleted.DeletionTimestamp == nil {
		s.log.Warn("The record of a deleted ScaledJob is broken; it is left alone", "file", s.recordPath(key))
		return nil
	}
	deleted.Status = *r.Status.DeepCopy()
	s.records[key], s.content.scaledJobs[key] = &r, deleted
	return nil
}

// retain keeps in force what a deleted ScaledJob may refer to: that was removed together with it, as a rule from the
// same file, and is needed to reach the queue that its items go back to. Over a restart it is not kept, since secrets
// are not to be stored.
func (c *content) retain(before *content) {
	inUse := map[string]bool{}
	for key, sj := range c.scaledJobs {
		inUse[key.Namespace] = inUse[key.Namespace] || sj.DeletionTimestamp != nil
	}
	retain(c.secrets, before.secrets, inUse)
	retain(c.configMaps, before.configMaps, inUse)
	retain(c.auths, before.auths, inUse)
	for name, auth := range before.clusterAuths {
		if c.clusterAuths[name] == nil && slices.Contains(slices.Collect(maps.Values(inUse)), true) {
			c.clusterAuths[name] = auth
		}
	}
}

func retain[T any](now, before map[types.NamespacedName]T, inUse map[string]bool) {
	for key, object := range before {
		if _, there := now[key]; !there && inUse[key.Namespace] {
			now[key] = object
		}
	}
}
