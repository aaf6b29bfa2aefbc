package objects

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/local/atomicfile"
)

// recordSuffix ends the names of the files that hold records.
const recordSuffix = ".json"

// record is what an API server would remember of a ScaledJob beyond its manifest. It is kept on disk, so that a
// ScaledJob is the same one after a restart.
type record struct {
	UID        types.UID                `json:"uid"`
	Created    metav1.Time              `json:"creationTimestamp"`
	Generation int64                    `json:"generation"`
	SpecHash   string                   `json:"specHash"`
	Status     v1alpha1.ScaledJobStatus `json:"status"`
	Totals     Totals                   `json:"totals"`
	// Paused tells that the user has paused the ScaledJob, whatever its manifest says.
	Paused bool `json:"paused,omitempty"`
	// Settles tells that the ScaledJob has v1alpha1.FinalizerSettle.
	Settles bool `json:"settles,omitempty"`
	// Deleted is the ScaledJob, without its status, once it is no longer among the manifests and its finalizer keeps it.
	Deleted *v1alpha1.ScaledJob `json:"deleted,omitempty"`

	// declared is the manifest's own annotation that pauses, nil when it has none, and file is the manifest.
	declared *string
	file     string
	// waitTold tells that another ScaledJob of this name waits for the deleted one, which was told.
	waitTold bool
}

// Totals count the finished Jobs of a ScaledJob that its history no longer holds.
type Totals struct {
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
}

// newRecord returns the record of a ScaledJob that was never seen before.
func newRecord() *record {
	return &record{UID: uuid.NewUUID(), Created: metav1.Now().Rfc3339Copy()}
}

// adopt gives a ScaledJob read from a manifest what the record holds, and counts its generation up when its
// specification is another one than before. It returns whether the record has changed.
func (r *record) adopt(sj *v1alpha1.ScaledJob) (changed bool, err error) {
	spec, err := json.Marshal(sj.Spec)
	if err != nil {
		return false, fmt.Errorf("encode the specification of ScaledJob %s/%s: %w", sj.Namespace, sj.Name, err)
	}
	sum := sha256.Sum256(spec)
	if hash := hex.EncodeToString(sum[:]); hash != r.SpecHash {
		r.SpecHash = hash
		r.Generation++
		changed = true
	}
	sj.UID, sj.CreationTimestamp, sj.Generation = r.UID, r.Created, r.Generation
	sj.DeletionTimestamp, sj.DeletionGracePeriodSeconds = nil, nil
	sj.Status = *r.Status.DeepCopy()
	r.finalize(sj)
	return changed, nil
}

func (s *Store) recordPath(key types.NamespacedName) string {
	return filepath.Join(s.dir, key.Namespace, key.Name+recordSuffix)
}

// load returns the record on disk, or a new one when there is none. A broken one is set aside: a new identity for the
// ScaledJob costs no work, only its history's owner.
func (s *Store) load(key types.NamespacedName) (*record, error) {
	path := s.recordPath(key)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newRecord(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of ScaledJob %s: %w", key, err)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil || r.UID == "" {
		s.log.Warn("The record of a ScaledJob is broken and was set aside", "scaledjob", key.String(),
			"file", path+".broken", "error", err)
		if err := os.Rename(path, path+".broken"); err != nil {
			return nil, fmt.Errorf("set the broken record of ScaledJob %s aside: %w", key, err)
		}
		return newRecord(), nil
	}
	return &r, nil
}

// cleanUp removes what a crash has left of records that were being written.
func (s *Store) cleanUp() error {
	namespaces, err := os.ReadDir(s.dir)
	for _, namespace := range namespaces {
		if namespace.IsDir() && err == nil {
			err = atomicfile.CleanUp(filepath.Join(s.dir, namespace.Name()))
		}
	}
	if err != nil {
		return fmt.Errorf("clean the folder of the ScaledJobs' records up: %w", err)
	}
	return nil
}

func (s *Store) save(key types.NamespacedName, r *record) error {
	path := s.recordPath(key)
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the record of ScaledJob %s: %w", key, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keep the record of ScaledJob %s: %w", key, err)
	}
	return atomicfile.Write(path, data)
}
