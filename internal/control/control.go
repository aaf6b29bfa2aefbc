// Package control is what the commands ask: Backend, which `offboard up` and a cluster both answer. And it is how they
// reach the `offboard up` of their machine: HTTP and JSON over a unix socket in the data folder, with a server and a
// client that speak that interface.
//
// It carries questions and answers and knows nothing of how they come about. It never listens on a network: who may
// open the socket file, which only its owner may, may do everything.
package control

import (
	"context"
	"io"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
)

// Limits of what one request may carry. They bound the memory that a caller can make the server use.
const (
	// MaxPushBytes is the largest push in bytes: all items together with their framing. It leaves room for one item of
	// the largest size that Redis itself takes, 512 MiB (proto-max-bulk-len).
	MaxPushBytes = 512<<20 + 64
	// MaxPushItems is the largest number of items in one push.
	MaxPushItems = 1_000_000
	// MaxQueueName is the longest name of a queue in bytes.
	MaxQueueName = 64 << 10
)

// Backend is where ScaledJobs and Jobs are: an `offboard up`, directly or behind a Client, or a cluster. Methods may
// be called from several goroutines. Errors that a caller can act on are an *Error or an error of
// k8s.io/apimachinery/pkg/api/errors; all others reach the client as Internal.
type Backend interface {
	// ScaledJobs returns the ScaledJobs of the namespace, or of all when it is empty, ordered by namespace and name.
	ScaledJobs(ctx context.Context, namespace string) ([]ScaledJobInfo, error)
	// Jobs returns the Jobs of the namespace and the ScaledJob, each of which may be empty to mean all, oldest first.
	Jobs(ctx context.Context, namespace, scaledJob string) ([]JobInfo, error)
	// Job returns one Job.
	Job(ctx context.Context, namespace, name string) (JobInfo, error)
	// Logs opens the output of one container of one Pod. The reader is for one goroutine, which closes it. Reads end
	// with io.EOF, or with an error soon after ctx has ended. A Job, Pod or container that does not exist gives
	// NotFound; a container that has not started has no output yet.
	Logs(ctx context.Context, namespace, job string, opts LogOptions) (io.ReadCloser, error)
	// Push appends the items to the queue, all or none, in their order. The items may hold any bytes.
	Push(ctx context.Context, queue Queue, items [][]byte) (PushResult, error)
	// PushWith appends the items for later, or unless another holds the unique key; Pushed.HeldBy then says which. All or
	// none, in their order.
	PushWith(ctx context.Context, to Queue, options queue.PushOptions, items [][]byte) (queue.Pushed, error)
	// Stats counts the items of the queue.
	Stats(ctx context.Context, of Queue) (queue.Stats, error)
	// Items returns what the queue knows of items, oldest first. An ID that it does not know gives NotFound.
	Items(ctx context.Context, of Queue, selection Selection) ([]queue.Record, error)
	// Change applies the operation to items and returns the ids of those for which that took effect: others are not in
	// the state that the operation is for. At most MaxChanges at once; what is put to the head of the queue by several
	// requests comes out in the order of the items when the last ones are put there first.
	Change(ctx context.Context, of Queue, operation Operation, items []ItemRef) ([]string, error)
	// SetPaused keeps the ScaledJob from starting new Jobs, or lets it start them again. It returns false when that was
	// so before.
	SetPaused(ctx context.Context, namespace, scaledJob string, paused bool) (changed bool, err error)
}

// Up is a Backend that is an `offboard up`: what a Server asks, and what Client is.
type Up interface {
	Backend
	// Info describes the running process.
	Info(ctx context.Context) (Info, error)
}

// ScaledJobInfo is a ScaledJob with what `up` knows of it.
type ScaledJobInfo struct {
	// Object is the ScaledJob with its status.
	Object *v1alpha1.ScaledJob `json:"object"`
	// Queue is how much work waits according to the last measurement; nil when that is not known. It is finite.
	Queue *float64 `json:"queue,omitempty"`
	// Running, Pending, Succeeded and Failed count Jobs. Running are unfinished ones that are not pending. Succeeded and
	// Failed count all since the state on disk began; on a cluster, which keeps no such count, those that the history
	// still holds.
	Running   int `json:"running"`
	Pending   int `json:"pending"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	// LastReason says why the last decision was what it was.
	LastReason string `json:"lastReason,omitempty"`
	// Events are what happened, oldest first.
	Events []Event `json:"events,omitempty"`
}

// Event is something that happened to a ScaledJob, once or several times.
type Event struct {
	// Type is Normal or Warning.
	Type string `json:"type"`
	// Reason is one CamelCase word.
	Reason string `json:"reason"`
	// Message is for people.
	Message string `json:"message"`
	// Count says how often it happened, First and Last when.
	Count int         `json:"count"`
	First metav1.Time `json:"firstTimestamp"`
	Last  metav1.Time `json:"lastTimestamp"`
}

// JobInfo is a Job with its Pods.
type JobInfo struct {
	Job *batchv1.Job `json:"job"`
	// Pods are the Job's Pods, oldest first.
	Pods []*corev1.Pod `json:"pods,omitempty"`
	// Item is the item that the Job's runner reported to have taken, else that which the Job was handed: empty when there
	// is neither, cut when it is long. On a cluster the former is known when the run has ended.
	// Bytes that are not UTF-8 arrive at a client as U+FFFD.
	Item string `json:"item,omitempty"`
}

// LogOptions choose what Logs returns.
type LogOptions struct {
	// Pod is the name of the Pod; empty means the newest one of the Job.
	Pod string
	// Container is the name of the container; empty means the first one of the Pod.
	Container string
	// Follow goes on with what is written from now on, until this run of the container or its Pod has ended.
	Follow bool
	// Tail is the number of lines from the end to begin with; nil means from the beginning.
	Tail *int64
	// Previous asks for the output of the container's run before the present one.
	Previous bool
}

// Queue names the queue of a ScaledJob's trigger.
type Queue struct {
	// Name is the queue's, for example that of a Redis list. It may hold any bytes.
	Name string
	// Namespace is the ScaledJob's; empty means any.
	Namespace string
	// ScaledJob is the ScaledJob's name; empty means any that has the queue.
	ScaledJob string
}

// PushResult tells what a push has led to.
type PushResult struct {
	// Length is the number of items in the queue directly after the push.
	Length int64 `json:"length"`
}

// Info describes the `offboard up` behind the socket.
type Info struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
	// DataDir is the folder that holds its state.
	DataDir string `json:"dataDir"`
	// Redis is the address (host:port) of the Redis that it serves, empty when it serves none.
	Redis string `json:"redis,omitempty"`
	// Manifests are the files and folders that it reads and watches.
	Manifests []string `json:"manifests"`
}
