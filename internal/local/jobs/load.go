package jobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/offboard-dev/offboard/internal/local/process"
)

// load reads all Jobs, makes them visible, and queues those that are not finished.
func (c *Controller) load(ctx context.Context) error {
	folders, err := c.jobFolders()
	if err != nil {
		return err
	}
	records := c.loadFolders(folders)
	departed, err := c.removedFolders()
	if err != nil {
		return err
	}
	if err := c.killLeftovers(ctx, slices.Concat(records, departed)); err != nil {
		return err
	}
	for _, r := range departed {
		if err := os.RemoveAll(r.journal.dir); err != nil {
			return fmt.Errorf("remove the folder of a deleted Job: %w", err)
		}
	}
	now := c.cfg.Clock.Now()
	for _, r := range records {
		c.index.insert(r, r.job)
		r.publish(r.job.ResourceVersion)
		r.unannounced = false
		c.interrupt(r, now)
		// A finished Job may have to be deleted: by its time to live, or because it was on its way out.
		if Finished(r.job) == nil || r.job.DeletionTimestamp != nil || r.job.Spec.TTLSecondsAfterFinished != nil {
			c.queue.add(r)
		}
	}
	return nil
}

// killLeftovers ends the processes of all Pods that have not ended.
func (c *Controller) killLeftovers(ctx context.Context, records []*record) error {
	var labels []string
	var recorded []process.Recorded
	for _, r := range records {
		for _, p := range r.pods {
			if !p.ended() {
				labels = append(labels, string(p.pod.UID))
				recorded = slices.AppendSeq(recorded, maps.Values(p.shell.processes))
			}
		}
	}
	if len(labels) == 0 || c.cfg.KillLeftovers == nil {
		return nil
	}
	if err := c.cfg.KillLeftovers(ctx, labels, recorded); err != nil {
		return fmt.Errorf("end what the previous run has left running: %w", err)
	}
	return nil
}

// jobFolder is a folder that should hold a Job.
type jobFolder struct {
	key types.NamespacedName
	dir string
}

// jobFolders lists the Jobs' folders. Files, and folders whose names nobody here gave, are left alone.
func (c *Controller) jobFolders() ([]jobFolder, error) {
	root := filepath.Join(c.cfg.Dir, jobsDir)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder for Jobs: %w", err)
	}
	namespaces, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("read the folder of Jobs: %w", err)
	}
	var folders []jobFolder
	for _, ns := range namespaces {
		if !ns.IsDir() || len(validation.IsDNS1123Label(ns.Name())) > 0 {
			c.ignored(filepath.Join(root, ns.Name()))
			continue
		}
		names, err := os.ReadDir(filepath.Join(root, ns.Name()))
		if err != nil {
			return nil, fmt.Errorf("read the folder of Jobs: %w", err)
		}
		for _, name := range names {
			dir := filepath.Join(root, ns.Name(), name.Name())
			if isSpare(name.Name()) {
				if err := os.RemoveAll(dir); err != nil {
					return nil, fmt.Errorf("remove the folder of a deleted Job: %w", err)
				}
				continue
			}
			if !name.IsDir() || len(validateName(nil, name.Name())) > 0 {
				c.ignored(dir)
				continue
			}
			folders = append(folders, jobFolder{types.NamespacedName{Namespace: ns.Name(), Name: name.Name()}, dir})
		}
	}
	return folders, nil
}

func (c *Controller) ignored(path string) {
	c.cfg.Log.Warn("A file or folder that is no Job's is among the Jobs; it is left alone", "path", path)
}

// loadFolders reads the folders, several at a time, and returns their Jobs in the order of creation.
func (c *Controller) loadFolders(folders []jobFolder) []*record {
	records := make([]*record, len(folders))
	next := make(chan int)
	var readers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		readers.Go(func() {
			for i := range next {
				records[i] = c.loadFolder(folders[i])
			}
		})
	}
	for i := range folders {
		next <- i
	}
	close(next)
	readers.Wait()
	records = slices.DeleteFunc(records, func(r *record) bool { return r == nil })
	slices.SortStableFunc(records, bySequence)
	for _, r := range records {
		revision, _ := strconv.ParseUint(r.job.ResourceVersion, 10, 64) // it was made from a number
		c.revision.Store(max(c.revision.Load(), revision))
		c.sequence.Store(max(c.sequence.Load(), r.sequence))
	}
	return records
}

// loadFolder reads one Job. It returns nil if that cannot be read; the folder is then moved aside.
func (c *Controller) loadFolder(f jobFolder) *record {
	r, err := c.readRecord(f.dir)
	if err == nil && r.key != f.key {
		err = fmt.Errorf("holds the Job %s", r.key)
	}
	if err != nil {
		c.moveAside(f, err)
		return nil
	}
	return r
}

// moveAside keeps a folder that cannot be read out of the way.
func (c *Controller) moveAside(f jobFolder, cause error) {
	base := filepath.Join(c.cfg.Dir, brokenDir, f.key.Namespace+"_"+f.key.Name)
	aside := base
	err := os.MkdirAll(filepath.Dir(base), 0o700)
	for n := 1; err == nil && n < 1000; n++ {
		if _, statErr := os.Lstat(aside); errors.Is(statErr, fs.ErrNotExist) {
			break
		}
		aside = base + "_" + strconv.Itoa(n)
	}
	if err == nil {
		err = os.Rename(f.dir, aside)
	}
	if err != nil {
		c.cfg.Log.Error("The state of a Job cannot be read, and its folder not be moved aside; the Job is left out",
			"namespace", f.key.Namespace, "job", f.key.Name, "folder", f.dir, "error", errors.Join(cause, err))
		return
	}
	c.cfg.Log.Warn("The state of a Job cannot be read; its folder was moved aside and the Job is left out",
		"namespace", f.key.Namespace, "job", f.key.Name, "folder", aside, "error", cause)
}

// removedFolders reads the Jobs that were deleted while their processes still had to end.
func (c *Controller) removedFolders() ([]*record, error) {
	root := filepath.Join(c.cfg.Dir, removedDir)
	folders, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the folder of deleted Jobs: %w", err)
	}
	var records []*record
	for _, folder := range folders {
		dir := filepath.Join(root, folder.Name())
		r, err := c.readRecord(dir)
		if err != nil {
			// Nobody misses the Job. What it may have left running is unknown, as for any state that cannot be read.
			r = &record{journal: &journal{dir: dir}}
		}
		records = append(records, r)
	}
	return records, nil
}

// readRecord reads a Job's state. Nothing in it is believed that could do harm: names become paths.
func (c *Controller) readRecord(dir string) (*record, error) {
	state, size, err := readState(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, err
	}
	job := state.Job
	SetDefaults(job)
	errs := append(validateMeta(&job.ObjectMeta), validateTemplate(&job.Spec.Template, nil)...)
	if err := errs.ToAggregate(); err != nil {
		return nil, err
	}
	if len(validation.IsDNS1123Label(string(job.UID))) > 0 {
		return nil, fmt.Errorf("metadata.uid: %q is not an identifier", job.UID)
	}
	job.Status = *state.Status
	job.ResourceVersion = strconv.FormatUint(state.Revision, 10)
	now := c.cfg.Clock.Now()
	if t := job.Status.StartTime; t != nil && t.After(now) {
		t.Time = now // the wall clock was set back
	}
	r := &record{
		key: types.NamespacedName{Namespace: job.Namespace, Name: job.Name}, uid: job.UID, sequence: state.Sequence,
		item:    state.Item,
		settles: settles(job),
		job:     job,
		journal: &journal{dir: dir, size: size, compacted: size, torn: true},
	}
	if state.Retry != nil {
		r.retry = *state.Retry
	}
	for i := range state.Pods {
		p, err := loadPod(r, &state.Pods[i])
		if err != nil {
			return nil, fmt.Errorf("pod %d: %w", i, err)
		}
		r.pods = append(r.pods, p)
	}
	return r, nil
}

func loadPod(r *record, e *podEntry) (*podState, error) {
	if errs := validateName(nil, e.Name); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	if e.UID == "" || e.Status == nil {
		return nil, fmt.Errorf("%s has no UID or no status", e.Name)
	}
	pod := newPod(r.job, e.Name, e.UID, e.Created.Time)
	pod.ResourceVersion = r.job.ResourceVersion
	pod.Status = *e.Status
	if e.Deleted != nil {
		seconds := int64(gracePeriod(pod) / time.Second)
		pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = e.Deleted, &seconds
	}
	return &podState{
		pod: pod, finishedAt: e.FinishedAt, counted: e.Counted, excluded: e.Excluded,
		shell: podShell{processes: e.Processes},
	}, nil
}
