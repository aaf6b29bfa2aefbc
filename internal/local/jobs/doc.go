// Package jobs is the Job controller of one machine: it keeps batch/v1 Jobs, runs their Pods through a PodRunner and
// gives Jobs the semantics that users know from Kubernetes, with all state on disk so that it survives the end of the
// program at any moment.
//
// What to do for a Job is decided by a pure function (decide); the rest of the package carries the decisions out. The
// order of effects is the package's promise:
//
//   - a Job is on disk before Create returns it,
//   - a Pod is on disk before its process starts, and the process's identity as soon as it is known,
//   - an outcome is on disk before a List shows it.
//
// The package must not know how a Pod becomes processes, what a ScaledJob wants, or where items come from.
package jobs
