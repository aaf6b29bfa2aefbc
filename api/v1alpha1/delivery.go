package v1alpha1

import (
	"math"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Values of spec.delivery.mode.
const (
	DeliveryPop   = "pop"
	DeliveryClaim = "claim"
)

// Defaults of spec.delivery.
const (
	DefaultItemVariable   = "OFFBOARD_ITEM"
	DefaultAttempts       = 1
	DefaultBackoffInitial = 10 * time.Second
	DefaultBackoffFactor  = 2.0
	DefaultBackoffMax     = 10 * time.Minute
	DefaultBackoffJitter  = 0.2
)

// What marks the objects of delivery by claim.
const (
	// FinalizerSettle keeps a Job until the outcome of its item is settled, and a ScaledJob until its items are released.
	FinalizerSettle = "offboard.dev/settle"
	// AnnotationItemID on a Job identifies its item within the queue, over all attempts.
	AnnotationItemID = "offboard.dev/item-id"
	// AnnotationAttempt on a Job counts the attempts of its item, from 1.
	AnnotationAttempt = "offboard.dev/attempt"
	// AnnotationQueue on a Job names the queue that its item is from.
	AnnotationQueue = "offboard.dev/queue"
	// AnnotationItem on a Job is the text of its item, cut: for people, not for programs.
	AnnotationItem = "offboard.dev/item"
)

// Variables in the environment of every container of a Job that has been handed an item.
const (
	// ItemVariableID holds what AnnotationItemID does.
	ItemVariableID = "OFFBOARD_ITEM_ID"
	// ItemVariableAttempt holds what AnnotationAttempt does.
	ItemVariableAttempt = "OFFBOARD_ATTEMPT"
	// ItemVariableFile holds the path of the file with the item, where spec.delivery.file asks for one.
	ItemVariableFile = "OFFBOARD_ITEM_FILE"
)

// Delivery says how an item of the queue reaches the Job that works on it, and what becomes of an item that fails.
//
// # Delivery by claim: the manifest
//
// A ScaledJob without spec.delivery is KEDA's: each Job's program takes an item off the queue itself (mode pop), and
// what becomes of the item is known to nobody else. With mode claim, the controller takes the item, hands it to one
// Job, and settles it when the Job has ended: done, given back to wait for another attempt, or buried.
//
//	spec:
//	  delivery:
//	    mode: claim          # default pop
//	    env: OFFBOARD_ITEM   # the variable that holds the item in every container; this name is the default
//	    file: /offboard/item # the item as a file, instead of the variable or, when both are given, beside it
//	    attempts: 3          # Jobs that an item may use up; default 1
//	    backoff: {initial: 10s, factor: 2, max: 10m, jitter: 0.2} # each optional; these are the defaults
//	    deadLetter: true     # default; false drops the item after its last attempt, and an event says so
//
// One Job is one run of one item: its parallelism and completions are 1, it is not Indexed and not created suspended.
// The ScaledJob has one trigger, whose type can hand out items, and no formula: scalingStrategy and minReplicaCount
// have no effect. The environment of every container holds ItemVariableID and ItemVariableAttempt too, and
// ItemVariableFile where there is a file; a manifest may set none of them itself.
//
// The field is an addition to KEDA's types. Where KEDA's own CustomResourceDefinition is installed the API server drops
// it, and says so only to clients that ask for strict validation, as kubectl does.
type Delivery struct {
	// Mode pop (default) lets the program take an item off the queue itself, as with KEDA; claim hands each Job one item
	// and settles it when the Job has ended. Everything else here has an effect with claim only.
	// +optional
	// +kubebuilder:validation:Enum=pop;claim
	Mode string `json:"mode,omitempty"`
	// Env is the variable that holds the item in every container. Default OFFBOARD_ITEM, or none when file is given.
	// +optional
	Env string `json:"env,omitempty"`
	// File is the absolute path of a file that holds the item in every container. Default: no file.
	// +optional
	File string `json:"file,omitempty"`
	// Attempts is how many Jobs an item may use up before it is buried. Default 1.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Attempts *int32 `json:"attempts,omitempty"`
	// Backoff says how long an item waits after an attempt that failed.
	// +optional
	Backoff *Backoff `json:"backoff,omitempty"`
	// DeadLetter tells whether an item is kept, in a queue of the dead, after its last attempt. Default true; false drops
	// it, and an event says so.
	// +optional
	DeadLetter *bool `json:"deadLetter,omitempty"`
}

// Backoff says how long an item waits after an attempt that failed: initial after the first, factor times as long after
// each further one, max at the most; each time randomly longer or shorter by a share of up to jitter.
//
// A duration is text such as 1m30s. Its pattern accepts nothing that cannot be read as a metav1.Duration, since one
// object with such a text would keep a client from reading all others in the same list.
type Backoff struct {
	// Initial is the wait after the first failed attempt. Default 10s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(\.[0-9]{1,9})?h|[0-9]{1,7}(\.[0-9]{1,9})?(m|[mµun]?s)){1,4}$`
	Initial *metav1.Duration `json:"initial,omitempty"`
	// Factor is what the wait is multiplied by after each further failed attempt, 1 or more. Default 2.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Factor *float64 `json:"factor,omitempty"`
	// Max is the longest wait, but for jitter. Default 10m.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(\.[0-9]{1,9})?h|[0-9]{1,7}(\.[0-9]{1,9})?(m|[mµun]?s)){1,4}$`
	Max *metav1.Duration `json:"max,omitempty"`
	// Jitter is the share of a wait by which it is randomly made longer or shorter, between 0 and 1. Default 0.2.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1
	Jitter *float64 `json:"jitter,omitempty"`
}

// ClaimsItems tells whether each Job is handed an item, rather than taking one itself.
func (s *ScaledJob) ClaimsItems() bool {
	return s.Spec.Delivery != nil && s.Spec.Delivery.Mode == DeliveryClaim
}

// Variable returns the name of the variable that holds the item; "" when only the file does. The receiver may be nil.
func (d *Delivery) Variable() string {
	switch {
	case d == nil || d.Env == "" && d.File == "":
		return DefaultItemVariable
	default:
		return d.Env
	}
}

// AttemptLimit returns how many Jobs an item may use up, at least 1. The receiver may be nil.
func (d *Delivery) AttemptLimit() int {
	if d == nil || d.Attempts == nil {
		return DefaultAttempts
	}
	return max(1, int(*d.Attempts))
}

// KeepsDead tells whether an item is kept after its last attempt. The receiver may be nil.
func (d *Delivery) KeepsDead() bool {
	return d == nil || d.DeadLetter == nil || *d.DeadLetter
}

// Wait returns how long an item waits after its failures-th failed attempt, counted from 1: the bounded backoff, made
// longer or shorter by random, which is in [0, 1). It is never negative. The receiver may be nil.
func (d *Delivery) Wait(failures int, random float64) time.Duration {
	var b *Backoff
	if d != nil {
		b = d.Backoff
	}
	initial, longest := b.Bounds()
	factor, jitter := b.rates()
	// Floats do not overflow: after many failures the power is infinite, which is still above the longest wait.
	wait := float64(initial) * math.Pow(factor, float64(max(1, failures)-1))
	wait = min(float64(longest), wait) * (1 + jitter*(2*random-1))
	switch {
	case math.IsNaN(wait) || wait < 0: // of values that validation refuses, such as nothing times infinity
		return 0
	case wait >= math.MaxInt64: // rounded up to a float: the largest duration itself is not above it
		return math.MaxInt64
	}
	return time.Duration(wait)
}

// Bounds returns the wait after the first failed attempt and the longest, both before jitter. The receiver may be nil.
func (b *Backoff) Bounds() (initial, longest time.Duration) {
	initial, longest = DefaultBackoffInitial, DefaultBackoffMax
	if b != nil && b.Initial != nil {
		initial = b.Initial.Duration
	}
	if b != nil && b.Max != nil {
		longest = b.Max.Duration
	}
	return initial, longest
}

func (b *Backoff) rates() (factor, jitter float64) {
	factor, jitter = DefaultBackoffFactor, DefaultBackoffJitter
	if b != nil && b.Factor != nil {
		factor = *b.Factor
	}
	if b != nil && b.Jitter != nil {
		jitter = *b.Jitter
	}
	return factor, jitter
}
