package objects

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// PausedByManifestError tells that a ScaledJob cannot be resumed, because its manifest says that it is paused, and
// manifests are their authors' alone to change.
type PausedByManifestError struct {
	ScaledJob types.NamespacedName
	// File is the manifest.
	File string
	// Value is what the annotation says.
	Value string
}

// Error implements error.
func (e *PausedByManifestError) Error() string {
	return fmt.Sprintf("ScaledJob %s is paused by its manifest: remove the annotation %s: %q from %s",
		e.ScaledJob, v1alpha1.AnnotationPaused, e.Value, e.File)
}

// declare keeps what the manifest says of pausing, and lays over it what the user has asked for since.
func (r *record) declare(sj *v1alpha1.ScaledJob, file string) {
	r.file = file
	r.declared = nil
	if value, found := sj.Annotations[v1alpha1.AnnotationPaused]; found {
		r.declared = &value
	}
	r.overlay(sj)
}

// overlay sets the annotation that pauses the ScaledJob, or else leaves it as the manifest has it.
func (r *record) overlay(sj *v1alpha1.ScaledJob) {
	switch {
	case r.Paused:
		metav1.SetMetaDataAnnotation(&sj.ObjectMeta, v1alpha1.AnnotationPaused, "true")
	case r.declared != nil:
		metav1.SetMetaDataAnnotation(&sj.ObjectMeta, v1alpha1.AnnotationPaused, *r.declared)
	default:
		delete(sj.Annotations, v1alpha1.AnnotationPaused)
	}
}

// SetPaused pauses the ScaledJob or resumes it, whatever becomes of its manifest: as if that had the annotation, also
// after a restart, until the ScaledJob is resumed or gone. It returns whether that changes anything. To resume what the
// manifest itself pauses gives a *PausedByManifestError.
func (s *Store) SetPaused(key types.NamespacedName, paused bool) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	current, r := s.content.scaledJobs[key], s.records[key]
	if current == nil {
		return false, apierrors.NewNotFound(v1alpha1.Resource("scaledjobs"), key.Name)
	}
	if paused && current.PausedByAnnotation() {
		return false, nil
	}
	if r.Paused != paused {
		before := r.Paused
		r.Paused = paused
		if err := s.save(key, r); err != nil {
			r.Paused = before
			return false, err
		}
		updated := current.DeepCopy()
		r.overlay(updated)
		s.content.scaledJobs[key] = updated
		current, changed = updated, true
	}
	if !paused && current.PausedByAnnotation() {
		return changed, &PausedByManifestError{
			ScaledJob: key, File: r.file, Value: current.Annotations[v1alpha1.AnnotationPaused],
		}
	}
	return changed, nil
}
