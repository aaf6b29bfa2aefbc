package kube

import (
	"cmp"
	"context"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// podsRefused is the reason of the events in which the Job controller says why it cannot make a Job's Pod.
const podsRefused = "FailedCreate"

// caches says what is watched: the ScaledJobs that the selector takes, Jobs and Pods that carry a ScaledJob's label
// (KEDA, too, gives it to both), and what the Job controller could not do.
func caches(namespaces []string, selector labels.Selector) cache.Options {
	options := cache.Options{ByObject: map[client.Object]cache.ByObject{
		rawScaledJob(): {Label: selector, Transform: readScaledJob, UnsafeDisableDeepCopy: ptr.To(true)},
		&batchv1.Job{}: {
			Label: ofScaledJobs(), Transform: strip(trimJob), UnsafeDisableDeepCopy: ptr.To(true),
		},
		&corev1.Pod{}: {
			Label:     ofScaledJobs(),
			Field:     fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
			Transform: strip(trimPod), UnsafeDisableDeepCopy: ptr.To(true),
		},
		&corev1.Event{}: {
			Field:     fields.SelectorFromSet(fields.Set{"involvedObject.kind": "Job", "reason": podsRefused}),
			Transform: strip(trimEvent), UnsafeDisableDeepCopy: ptr.To(true),
		},
	}}
	if len(namespaces) > 0 {
		options.DefaultNamespaces = map[string]cache.Config{}
		for _, namespace := range namespaces {
			options.DefaultNamespaces[namespace] = cache.Config{}
		}
	}
	return options
}

// ofScaledJobs selects the Jobs of ScaledJobs, and their Pods.
func ofScaledJobs() labels.Selector {
	requirement, err := labels.NewRequirement(v1alpha1.LabelScaledJob, selection.Exists, nil)
	if err != nil {
		panic(err) // the label is a constant
	}
	return labels.NewSelector().Add(*requirement)
}

// watch feeds the store and the objects from the caches, and tells the controller what has changed.
func (o *operator) watch(ctx context.Context, informers cache.Informers) error {
	job := handle(func(before, job *batchv1.Job) {
		o.rations.poke()
		if before != nil && (job == nil || ownerOf(before) != ownerOf(job)) {
			o.store.hide(ownerOf(before), before)
			o.changed(ownerOf(before))
			o.abandoned.look(before, false)
		}
		if job != nil {
			if o.store.show(ownerOf(job), job) {
				o.changed(ownerOf(job))
			}
			o.abandoned.look(job, true)
		}
	})
	pod := handle(func(before, pod *corev1.Pod) {
		o.rations.poke()
		if before != nil && (pod == nil || jobOf(before) != jobOf(pod)) {
			if owner, news := o.store.hidePod(before); news {
				o.changed(owner)
			}
		}
		if pod != nil {
			if owner, news := o.store.showPod(pod); news {
				o.changed(owner)
			}
		}
	})
	event := handle(func(before, event *corev1.Event) {
		job, words := cmp.Or(event, before).InvolvedObject, ""
		if event != nil {
			words = nameless(event.Message, quoted(event.Message, job.Name+"-"), job.Name+"-")
		}
		if owner, news := o.store.refuse(job.UID, words); news {
			o.changed(owner)
		}
	})
	scaledJob := handle(func(before, after client.Object) {
		if after == nil {
			o.objects.hide(before)
			o.changed(client.ObjectKeyFromObject(before))
			o.abandoned.lookAt(client.ObjectKeyFromObject(before))
			o.finalizers.look(v1alpha1.KindScaledJob, kedaFinalizer, before, false)
			o.finalizers.look(v1alpha1.KindScaledJob, v1alpha1.FinalizerSettle, before, false)
			return
		}
		if sj, readable := after.(*v1alpha1.ScaledJob); !readable {
			o.unreadable(after)
		} else if o.objects.show(sj) {
			o.changed(sj.Key())
		}
		o.finalizers.look(v1alpha1.KindScaledJob, kedaFinalizer, after, true)
	})
	authentication := handle(func(before, a *v1alpha1.TriggerAuthentication) {
		current := cmp.Or(a, before)
		o.refresh(current.Namespace, v1alpha1.KindTriggerAuthentication, current.Name)
		o.finalizers.look(v1alpha1.KindTriggerAuthentication, kedaFinalizer, current, a != nil)
	})
	clusterAuthentication := handle(func(before, a *v1alpha1.ClusterTriggerAuthentication) {
		current := cmp.Or(a, before)
		o.refresh("", v1alpha1.KindClusterTriggerAuthentication, current.Name)
		o.finalizers.look(v1alpha1.KindClusterTriggerAuthentication, kedaFinalizer, current, a != nil)
	})
	type kind struct {
		kind    string
		object  client.Object
		handler toolscache.ResourceEventHandler
	}
	kinds := []kind{
		{"Job", &batchv1.Job{}, job},
		{"Pod", &corev1.Pod{}, pod},
		{"Event", &corev1.Event{}, event},
		{v1alpha1.KindScaledJob, rawScaledJob(), scaledJob},
		{v1alpha1.KindTriggerAuthentication, &v1alpha1.TriggerAuthentication{}, authentication},
		{v1alpha1.KindClusterTriggerAuthentication, &v1alpha1.ClusterTriggerAuthentication{}, clusterAuthentication},
	}
	if o.members != nil {
		kinds = append(kinds, kind{"Lease", &coordinationv1.Lease{}, handle(func(before, lease *coordinationv1.Lease) {
			o.members.show(before, lease)
			if before == nil || lease == nil {
				o.rations.notice()
			}
		})})
	}
	if o.rations != nil {
		kinds = append(kinds, kind{"ConfigMap", &corev1.ConfigMap{}, handle(o.rations.show)})
	}
	for _, w := range kinds {
		informer, err := informers.GetInformer(ctx, w.object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch the kind %s: %w", w.kind, err)
		}
		registration, err := informer.AddEventHandler(w.handler)
		if err != nil {
			return fmt.Errorf("watch the kind %s: %w", w.kind, err)
		}
		o.watched = append(o.watched, watchedKind{w.kind, registration.HasSynced})
	}
	return nil
}

// unreadable tells of a ScaledJob that the Go type cannot hold. As on one machine, the last good version stays in
// force.
func (o *operator) unreadable(object client.Object) {
	key := client.ObjectKeyFromObject(object)
	if object.GetDeletionTimestamp() != nil {
		if !o.objects.leaves(object) {
			o.objects.hide(object)
			// Nobody knows which items it had, and nobody else takes the finalizer off.
			o.finalizers.look(v1alpha1.KindScaledJob, v1alpha1.FinalizerSettle, object, true)
		}
		o.changed(key)
		return
	}
	if o.ReleaseAll && !o.objects.knows(object) {
		o.finalizers.look(v1alpha1.KindScaledJob, v1alpha1.FinalizerSettle, object, true)
	}
	_, err := toScaledJob(object)
	o.Log.Error("a ScaledJob cannot be read", "scaledjob", key.String(), "error", err)
	o.events.unreadable(object, err)
}

// handle makes an event handler of a function that is given an object as it was and as it is: nil where there is none.
func handle[T client.Object](changed func(before, after T)) toolscache.ResourceEventHandler {
	var none T
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			if typed, ok := object.(T); ok {
				changed(none, typed)
			}
		},
		UpdateFunc: func(before, after any) {
			if typed, ok := after.(T); ok {
				old, _ := before.(T)
				changed(old, typed)
			}
		},
		DeleteFunc: func(object any) {
			if tombstone, missed := object.(toolscache.DeletedFinalStateUnknown); missed {
				object = tombstone.Obj
			}
			if typed, ok := object.(T); ok {
				changed(typed, none)
			}
		},
	}
}
