package kube

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

const (
	// nameSuffix is the length of the random end of a Job's name, as the server's own generateName makes it.
	nameSuffix = 5
	// maxNames bounds how many names are tried when others have taken the ones before.
	maxNames = 8
)

// Create implements scaledjob.Jobs. The name is chosen here, if not by the caller, and not by the server, so that a
// request whose answer was lost can be repeated without making a second Job.
func (j *jobs) Create(ctx context.Context, job *batchv1.Job, file *scaledjob.ItemFile) (*batchv1.Job, error) {
	owner := ownerOf(job)
	if owner.Name == "" {
		return nil, fmt.Errorf("a Job for %s%s has no label %s", job.GenerateName, job.Name, v1alpha1.LabelScaledJob)
	}
	// The ScaledJob's annotations, which the Job has, may hold another Job's.
	delete(job.Annotations, annotationCreator)
	if j.creator != nil {
		metav1.SetMetaDataAnnotation(&job.ObjectMeta, annotationCreator, j.creator())
	}
	if job.Name != "" {
		return j.createNamed(ctx, owner, job, file)
	}
	generatedFrom := job.GenerateName
	for range maxNames {
		name := generatedFrom[:min(len(generatedFrom), validation.DNS1123LabelMaxLength-nameSuffix)] +
			rand.String(nameSuffix)
		job.GenerateName, job.Name = "", name
		if !j.store.creating(owner, name) {
			continue
		}
		stored, err := j.carryOut(ctx, owner, job, file, naming{})
		if err == nil {
			return stored, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, refusal{err, nameless(err.Error(), name, generatedFrom)}
		}
	}
	return nil, fmt.Errorf("%d names for a Job %s… were taken already", maxNames, generatedFrom)
}

// createNamed makes the Job of a name that the caller has chosen, unless the ScaledJob has one of that name.
func (j *jobs) createNamed(
	ctx context.Context, owner types.NamespacedName, job *batchv1.Job, file *scaledjob.ItemFile,
) (*batchv1.Job, error) {
	for range 2 {
		named := j.store.naming(owner, job.Name)
		switch {
		case named.busy:
			return nil, fmt.Errorf("the Job %s/%s is being created already", job.Namespace, job.Name)
		case !named.known:
			return j.carryOut(ctx, owner, job, file, named)
		}
		// Whose it is, the store does not know for certain: there may have been another ScaledJob of that name.
		switch found, err := j.ask(ctx, owner, job.Name, time.Now()); {
		case err != nil:
			return nil, err
		case found == nil: // then the store does not know it any more either, unless a watch has shown it
		case !sameOwner(found, job):
			return nil, apierrors.NewAlreadyExists(batchv1.Resource("jobs"), job.Name)
		default:
			return found, nil
		}
	}
	return nil, fmt.Errorf("the Job %s/%s is gone, which the watch has yet to show", job.Namespace, job.Name)
}

// carryOut creates a Job, which the store knows to be on its way, and what belongs to it.
func (j *jobs) carryOut(
	ctx context.Context, owner types.NamespacedName, job *batchv1.Job, file *scaledjob.ItemFile, before naming,
) (*batchv1.Job, error) {
	stored, lost, err := j.createWithItem(ctx, job, file, before.again)
	switch {
	case err == nil:
		j.store.created(owner, stored, time.Now())
		return stored, nil
	case lost:
		j.store.unknown(owner, job.Name, time.Now())
	case before.again:
		// This time it was refused; the request before may take effect all the same.
		j.store.unknown(owner, job.Name, before.lost)
	default:
		j.store.notCreated(owner, job.Name)
	}
	return nil, err
}

// createWithItem creates the Secrets with the Job's item, if there is one, and the Job. lost tells that the Job may
// exist although there is an error; again, that it may have before.
func (j *jobs) createWithItem(
	ctx context.Context, job *batchv1.Job, file *scaledjob.ItemFile, again bool,
) (stored *batchv1.Job, lost bool, err error) {
	if file == nil {
		return j.create(ctx, job)
	}
	job = job.DeepCopy()
	if err := mountItem(job, file, j.itemImage); err != nil {
		return nil, false, err
	}
	if err := j.createSecrets(ctx, job, file.Content); err != nil {
		return nil, false, err
	}
	stored, lost, err = j.create(ctx, job)
	if err != nil && !lost && !again {
		_ = j.deleteSecrets(ctx, job) // they go with the ScaledJob at the latest
	}
	return stored, lost, err
}

// create asks the server for the Job, again and again where that may help. lost tells that the Job may exist although
// there is an error.
func (j *jobs) create(ctx context.Context, job *batchv1.Job) (stored *batchv1.Job, lost bool, err error) {
	err = retry(ctx, func(ctx context.Context) error {
		if err := j.may(ownerOf(job)); err != nil {
			return err
		}
		attempt := job.DeepCopy()
		err := j.writer.Create(ctx, attempt)
		if err == nil {
			stored = attempt
			return nil
		}
		if apierrors.IsAlreadyExists(err) {
			// A request before took effect, be it one that the client has repeated by itself, unless somebody else's Job
			// has the same name: of the ScaledJob's own, only one that the caller has asked for before has it.
			if getErr := j.reader.Get(ctx, client.ObjectKeyFromObject(job), attempt); getErr != nil {
				lost = true // whose it is, is not known yet
				return getErr
			}
			if sameOwner(attempt, job) {
				stored, lost = attempt, false
				return nil
			}
			lost = false
			return err
		}
		lost = lost || !answered(err)
		return err
	})
	return stored, lost, err
}

func sameOwner(a, b metav1.Object) bool {
	ownerA, ownerB := metav1.GetControllerOfNoCopy(a), metav1.GetControllerOfNoCopy(b)
	return ownerA != nil && ownerB != nil && ownerA.UID == ownerB.UID
}

// refusal is a server's error in words that do not change from one attempt to the next.
type refusal struct {
	error
	words string
}

func (r refusal) Error() string { return r.words }
func (r refusal) Unwrap() error { return r.error }
