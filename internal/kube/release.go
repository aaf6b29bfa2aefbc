package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

const (
	// unreleasedFirst and unreleasedLast are the pauses between looks at what is not released yet: ever longer ones.
	unreleasedFirst = 100 * time.Millisecond
	unreleasedLast  = 2 * time.Second
	// unreleasedTold is how often it is told what is not released yet.
	unreleasedTold = 10 * time.Second
)

var errUnreleased = errors.New("it has ended before everything was released: start it again with --release-all")

// prepareRelease makes others give way.
func (o *operator) prepareRelease(ctx context.Context) error {
	if o.Webhook != nil {
		if err := o.openWebhook(ctx); err != nil {
			return fmt.Errorf("make the webhook let everything pass: %w", err)
		}
	}
	if o.StopDeployment.Name != "" {
		return o.stopDeployment(ctx)
	}
	return nil
}

// openWebhook makes the API server go on when the webhook does not answer. Otherwise it would refuse that finalizers
// are taken off.
func (o *operator) openWebhook(ctx context.Context) error {
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	err := o.client.Get(ctx, client.ObjectKey{Name: o.Webhook.Configuration}, configuration)
	if err != nil {
		return client.IgnoreNotFound(err)
	}
	before := configuration.DeepCopy()
	for i := range configuration.Webhooks {
		configuration.Webhooks[i].FailurePolicy = new(admissionregistrationv1.Ignore)
	}
	return client.IgnoreNotFound(o.client.Patch(ctx, configuration, client.StrategicMergeFrom(before)))
}

// stopDeployment scales the Deployment to 0. Where its replicas have no Leases, it waits for their end.
func (o *operator) stopDeployment(ctx context.Context) error {
	scale := &autoscalingv1.Scale{}
	err := retry(ctx, func(ctx context.Context) error {
		deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
			Namespace: o.StopDeployment.Namespace, Name: o.StopDeployment.Name,
		}}
		to0 := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":0}}`))
		return o.client.SubResource("scale").Patch(ctx, deployment, to0, client.WithSubResourceBody(scale))
	})
	if apierrors.IsNotFound(err) {
		o.Log.Info("there is no Deployment to be stopped", "deployment", o.StopDeployment.String())
		return nil
	}
	if err != nil {
		return fmt.Errorf("scale Deployment %s to 0: %w", o.StopDeployment, err)
	}
	o.Log.Info("the Deployment is scaled to 0", "deployment", o.StopDeployment.String())
	if o.LeaderElection {
		return nil
	}
	selector, err := labels.Parse(scale.Status.Selector)
	if err != nil {
		return fmt.Errorf("read which Pods Deployment %s has: %w", o.StopDeployment, err)
	}
	for {
		running, err := o.replicas(ctx, selector)
		if err == nil && running == 0 {
			return nil
		}
		if err != nil {
			o.Log.Warn("it is not known whether the operator has ended", "error", err)
		}
		if !wait(ctx, unreleasedLast) {
			return nil
		}
	}
}

// replicas counts the Pods of the Deployment that there are, also those that are about to end.
func (o *operator) replicas(ctx context.Context, selector labels.Selector) (count int, err error) {
	list, namespaces := corev1.SchemeGroupVersion.WithKind("PodList"), []string{o.StopDeployment.Namespace}
	err = eachOf(ctx, o.client, namespaces, list, selector, func(pod *metav1.PartialObjectMetadata) error {
		// The Pod that this is may have the same labels.
		if owner := metav1.GetControllerOfNoCopy(pod); owner != nil && owner.Kind == "ReplicaSet" {
			count++
		}
		return nil
	})
	return count, err
}

// untilReleased ends the work when the server says that nothing of this operator has the finalizer any more, and that
// no other replica is left, which would begin anew.
func (o *operator) untilReleased(ctx context.Context) {
	var told time.Time
	for pause := unreleasedFirst; ; pause = min(2*pause, unreleasedLast) {
		scaledJobs, jobs, err := o.unreleased(ctx)
		others, othersErr := o.otherReplicas(ctx)
		err = cmp.Or(err, othersErr)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && scaledJobs+jobs+others == 0:
			o.Log.Info("everything is released: no ScaledJob and no Job has the finalizer " + v1alpha1.FinalizerSettle)
			o.released = true
			o.end()
			return
		case time.Since(told) >= unreleasedTold:
			told = time.Now()
			if err != nil {
				o.Log.Warn("it is not known what has to be released", "error", err)
			} else {
				o.Log.Info("releasing", "scaledjobs", scaledJobs, "jobs", jobs, "replicas to be stopped", others)
			}
		}
		if !wait(ctx, pause) {
			return
		}
	}
}

// otherReplicas counts the other replicas.
func (o *operator) otherReplicas(ctx context.Context) (int, error) {
	if o.members == nil {
		return 0, nil
	}
	others, err := o.members.askOthers(ctx)
	return len(others), err
}

// unreleased counts the ScaledJobs and Jobs that still have the finalizer. Jobs whose ScaledJobs are another operator's
// are its own.
func (o *operator) unreleased(ctx context.Context) (scaledJobs, jobs int, err error) {
	others := map[types.NamespacedName]bool{}
	list := v1alpha1.GroupVersion.WithKind(v1alpha1.KindScaledJob + "List")
	err = eachOf(ctx, o.client, o.Namespaces, list, labels.Everything(), func(object *metav1.PartialObjectMetadata) error {
		if !selects(o.Selector, object) {
			others[client.ObjectKeyFromObject(object)] = true
		} else if controllerutil.ContainsFinalizer(object, v1alpha1.FinalizerSettle) {
			scaledJobs++
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	list = batchv1.SchemeGroupVersion.WithKind("JobList")
	err = eachOf(ctx, o.client, o.Namespaces, list, ofScaledJobs(), func(object *metav1.PartialObjectMetadata) error {
		if controllerutil.ContainsFinalizer(object, v1alpha1.FinalizerSettle) && !others[ownerOf(object)] {
			jobs++
		}
		return nil
	})
	return scaledJobs, jobs, err
}

// selects tells whether the selector, if there is one, takes the object.
func selects(selector labels.Selector, object client.Object) bool {
	return selector == nil || selector.Matches(labels.Set(object.GetLabels()))
}

// releaseJobs takes the finalizer off all Jobs of a cluster that does not know ScaledJobs any more. Whoever has deleted
// the definitions has deleted the ScaledJobs, and nobody looks after any.
func (o *operator) releaseJobs(
	ctx context.Context, config *rest.Config, scheme *runtime.Scheme, mapper meta.RESTMapper,
) error {
	o.Log.Warn("the cluster has no definition of ScaledJobs: all of their Jobs are let go, whose items nobody settles")
	direct, err := client.New(config, client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		return fmt.Errorf("connect to the cluster %s: %w", config.Host, err)
	}
	all := &jobs{store: o.store, writer: direct, reader: direct, may: always}
	list := batchv1.SchemeGroupVersion.WithKind("JobList")
	return eachOf(ctx, direct, o.Namespaces, list, ofScaledJobs(), func(object *metav1.PartialObjectMetadata) error {
		if !controllerutil.ContainsFinalizer(object, v1alpha1.FinalizerSettle) {
			return nil
		}
		return all.Settled(ctx, scaledjob.Job{Job: &batchv1.Job{ObjectMeta: object.ObjectMeta}})
	})
}
