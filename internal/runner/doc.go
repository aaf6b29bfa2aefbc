// Package runner is the program inside a Job: it takes one item from a Redis list and runs a command with it, then ends
// as the command ended. It serves any language, since the command needs to know nothing of Redis.
//
// It starts once per item, so it starts quickly: it depends on little and does no work before it is asked to. It knows
// nothing of ScaledJobs and of the process that made its Job.
package runner
