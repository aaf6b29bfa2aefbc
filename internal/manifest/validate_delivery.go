package manifest

import (
	"path"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// delivery checks how items reach the Jobs, and that the rest of the specification at that place goes with it.
func (c *checker) delivery(spec *field.Path, scaledJob *v1alpha1.ScaledJobSpec) {
	at, delivery := spec.Child("delivery"), scaledJob.Delivery
	c.oneOf(at.Child("mode"), delivery.Mode, v1alpha1.DeliveryPop, v1alpha1.DeliveryClaim)
	c.itemVariable(at.Child("env"), delivery.Env)
	c.itemFile(at.Child("file"), delivery.File)
	atLeast(c, at.Child("attempts"), delivery.Attempts, 1)
	if delivery.Backoff != nil {
		c.backoff(at.Child("backoff"), delivery.Backoff)
	}
	switch {
	case delivery.Mode == v1alpha1.DeliveryClaim:
		c.claimedTrigger(spec.Child("triggers"), scaledJob.Triggers)
		c.claimedStrategy(spec, scaledJob)
		if scaledJob.JobTargetRef != nil {
			c.claimedJob(spec.Child("jobTargetRef"), scaledJob.JobTargetRef)
			c.claimedEnvironment(spec.Child("jobTargetRef", "template", "spec"), &scaledJob.JobTargetRef.Template.Spec, delivery)
		}
	case delivery.Mode == v1alpha1.DeliveryPop, delivery.Mode == "" && !c.unread(at.Child("mode")):
		c.poppedDelivery(at, delivery)
	}
}

// unread tells whether a field is empty only because it could not be decoded.
func (c *checker) unread(at *field.Path) bool { return c.doc.reported[canonical(at.String())] }

// itemVariables are the variables that go with an item, beside the one that holds it.
var itemVariables = []string{v1alpha1.ItemVariableID, v1alpha1.ItemVariableAttempt, v1alpha1.ItemVariableFile}

func (c *checker) itemVariable(at *field.Path, name string) {
	switch {
	case name == "":
	case slices.Contains(itemVariables, name):
		c.fail(at, name, "Offboard gives %s another meaning: want %s or a name of your own", name,
			v1alpha1.DefaultItemVariable)
	default:
		c.invalid(at, name, validation.IsEnvVarName(name))
	}
}

func (c *checker) itemFile(at *field.Path, file string) {
	const example = `"/offboard/item"`
	switch {
	case file == "":
	case strings.ContainsRune(file, 0):
		c.fail(at, nil, "the path holds a NUL character, want a path such as %s", example)
	case !path.IsAbs(file):
		c.fail(at, file, "got %s, want an absolute path such as %s", strconv.Quote(shorten(file)), example)
	case path.Clean(file) == "/":
		c.fail(at, file, "got %s, want the path of a file such as %s", strconv.Quote(shorten(file)), example)
	case path.Clean(file) != file:
		c.fail(at, file, "got %s, want %s", strconv.Quote(shorten(file)), strconv.Quote(shorten(path.Clean(file))))
	}
}

func (c *checker) backoff(at *field.Path, backoff *v1alpha1.Backoff) {
	first, most := at.Child("initial"), at.Child("max")
	// Only where both are what was meant does their order say something.
	sound := !c.unread(first) && !c.unread(most)
	if given := backoff.Initial; given != nil && given.Duration <= 0 {
		c.fail(first, given.Duration, "got %v, want above 0, such as %v", given.Duration, v1alpha1.DefaultBackoffInitial)
		sound = false
	}
	if given := backoff.Max; given != nil && given.Duration <= 0 {
		c.fail(most, given.Duration, "got %v, want above 0, such as %v", given.Duration, v1alpha1.DefaultBackoffMax)
		sound = false
	}
	switch initial, longest := backoff.Bounds(); {
	case !sound || initial <= longest:
	case backoff.Max == nil:
		c.fail(first, initial, "got %v, want %v or less, which is max unless it is given: give a larger max", initial,
			longest)
	case backoff.Initial == nil:
		c.fail(most, longest, "got %v, want %v or more, which is initial unless it is given: give a smaller initial", longest,
			initial)
	default:
		c.fail(first, initial, "got %v, want max, which is %v, or less", initial, longest)
	}
	if factor := backoff.Factor; factor != nil && *factor < 1 {
		c.fail(at.Child("factor"), *factor, "got %v, want 1 or more: waits do not become shorter", *factor)
	}
	if jitter := backoff.Jitter; jitter != nil && (*jitter < 0 || *jitter > 1) {
		c.fail(at.Child("jitter"), *jitter, "got %v, want a share between 0 and 1 such as %v", *jitter,
			v1alpha1.DefaultBackoffJitter)
	}
}

// claimedTrigger checks that there is one trigger, which can hand out items.
func (c *checker) claimedTrigger(at *field.Path, triggers []v1alpha1.ScaleTriggers) {
	if len(triggers) > 1 {
		c.fail(at, nil, "there are %d triggers, want one where delivery.mode is claim: write a ScaledJob for each of the "+
			"others", len(triggers))
		return
	}
	for i := range triggers {
		known, found := trigger.Find(c.types, triggers[i].Type)
		if !found {
			continue // it is reported as such
		}
		if known.Claims {
			c.metadata(at.Index(i).Child("metadata"),
				known.ValidateClaims(triggers[i].Metadata, triggers[i].AuthenticationRef != nil))
			continue
		}
		var able []string
		for _, t := range c.types {
			if t.Claims {
				able = append(able, t.Name)
			}
		}
		c.fail(at.Index(i).Child("type"), known.Name, "mode claim needs a trigger that can hand out items: want one of %s",
			list(able))
	}
}

// claimedStrategy warns of what decides how many Jobs there are where not each of them has an item.
func (c *checker) claimedStrategy(spec *field.Path, scaledJob *v1alpha1.ScaledJobSpec) {
	const noEffect = "it has no effect where delivery.mode is claim: each item has a Job, up to maxReplicaCount at once"
	if least := scaledJob.MinReplicaCount; least != nil && *least > 0 {
		c.warn(spec.Child("minReplicaCount"), *least, noEffect)
	}
	at, strategy := spec.Child("scalingStrategy"), &scaledJob.ScalingStrategy
	for _, text := range []struct{ field, value string }{
		{"strategy", strategy.Strategy},
		{"customScalingRunningJobPercentage", strategy.CustomScalingRunningJobPercentage},
		{"multipleScalersCalculation", strategy.MultipleScalersCalculation},
	} {
		if text.value != "" {
			c.warn(at.Child(text.field), text.value, noEffect)
		}
	}
	if deduction := strategy.CustomScalingQueueLengthDeduction; deduction != nil {
		c.warn(at.Child("customScalingQueueLengthDeduction"), *deduction, noEffect)
	}
	if len(strategy.PendingPodConditions) > 0 {
		c.warn(at.Child("pendingPodConditions"), nil, noEffect)
	}
	if scaledJob.Fallback != nil {
		c.warn(spec.Child("fallback"), nil, "it has no effect where delivery.mode is claim: from a queue that does not "+
			"answer no item can be claimed")
	}
	if scaledJob.Advanced != nil && scaledJob.Advanced.ScalingModifiers != nil {
		c.warn(spec.Child("advanced", "scalingModifiers"), nil, noEffect)
	}
}

// claimedJob refuses Jobs that are not one run of one item.
func (c *checker) claimedJob(at *field.Path, job *batchv1.JobSpec) {
	const one = "where delivery.mode is claim: one Job is one run of one item"
	// What is below 0 is wrong in any case.
	if count := job.Parallelism; count != nil && *count >= 0 && *count != 1 {
		c.fail(at.Child("parallelism"), *count, "got %d, want 1 %s, and maxReplicaCount says how many run at once", *count,
			one)
	}
	if count := job.Completions; count != nil && *count >= 0 && *count != 1 {
		c.fail(at.Child("completions"), *count, "got %d, want 1 %s", *count, one)
	}
	if mode := job.CompletionMode; mode != nil && *mode == batchv1.IndexedCompletion {
		c.fail(at.Child("completionMode"), string(*mode), "got %s, want %s %s", *mode, batchv1.NonIndexedCompletion, one)
	}
	if job.Suspend != nil && *job.Suspend {
		c.fail(at.Child("suspend"), true, "got true, want false where delivery.mode is claim: a Job that does not run would "+
			"only hold its item back")
	}
}

// claimedEnvironment refuses containers that would hide the item, since what a container says of itself wins.
func (c *checker) claimedEnvironment(at *field.Path, pod *corev1.PodSpec, delivery *v1alpha1.Delivery) {
	item := delivery.Variable()
	check := func(at *field.Path, containers []corev1.Container) {
		for i := range containers {
			for j, env := range containers[i].Env {
				name := at.Index(i).Child("env").Index(j).Child("name")
				switch {
				case env.Name == "":
				case env.Name == item:
					c.fail(name, env.Name, "%s holds the item where delivery.mode is claim: remove it here, or choose another "+
						"name in delivery.env", env.Name)
				case slices.Contains(itemVariables, env.Name):
					c.fail(name, env.Name, "Offboard sets %s where delivery.mode is claim: remove it here", env.Name)
				}
			}
		}
	}
	check(at.Child("initContainers"), pod.InitContainers)
	check(at.Child("containers"), pod.Containers)
}

// poppedDelivery warns of what only mode claim heeds.
func (c *checker) poppedDelivery(at *field.Path, delivery *v1alpha1.Delivery) {
	const noEffect = "it has an effect with mode claim only"
	if delivery.Env != "" {
		c.warn(at.Child("env"), delivery.Env, noEffect)
	}
	if delivery.File != "" {
		c.warn(at.Child("file"), delivery.File, noEffect)
	}
	if delivery.Attempts != nil {
		c.warn(at.Child("attempts"), *delivery.Attempts, noEffect)
	}
	if delivery.Backoff != nil {
		c.warn(at.Child("backoff"), nil, noEffect)
	}
	if delivery.DeadLetter != nil {
		c.warn(at.Child("deadLetter"), *delivery.DeadLetter, noEffect)
	}
}
